@_exported import CoreGraphics
@_exported import Foundation

// MARK: Views

@MainActor @preconcurrency
public protocol View {
    associatedtype Body: View
    @ViewBuilder @MainActor @preconcurrency var body: Body { get }
}

extension Never: View {
    public var body: Never { return fatalError("a view without a body") }
}

/// A view of the stand-in's own: it has no body, and says what a person finds on it.
@MainActor
protocol Primitive: View where Body == Never {
    var elements: [Element] { get }
}

extension Primitive {
    public var body: Never { return fatalError("a view without a body") }
}

/// What a person finds on a screen, and what the system calls.
public enum Element {
    case text(String)
    case image(CGImage, pixels: Bool)
    case button(String, @MainActor () -> Void)
    case appear(() -> Void)
    case refresh(@Sendable () async -> Void)
}

/// All elements of a view, in their order.
@MainActor
public func elements<Content: View>(of view: Content) -> [Element] {
    if let view = view as? any Primitive { return view.elements }
    return elements(of: view.body)
}

struct Elements: Primitive {
    let elements: [Element]
}

@resultBuilder
public struct ViewBuilder {
    public static func buildExpression<Content: View>(_ content: Content) -> Content { content }
    @MainActor public static func buildBlock<each Content: View>(_ content: repeat each Content) -> some View {
        var all: [Element] = []
        repeat all += elements(of: each content)
        return Elements(elements: all)
    }
    @MainActor public static func buildIf<Content: View>(_ content: Content?) -> some View {
        Elements(elements: content.map { elements(of: $0) } ?? [])
    }
}

public struct Text: Primitive {
    let elements: [Element]

    public init<S: StringProtocol>(_ content: S) { elements = [.text(String(content))] }
    public func font(_ font: Font?) -> Text { self }
}

public struct Image: Primitive {
    public enum Orientation: UInt8, Sendable { case up, down }
    public enum Interpolation: Sendable { case none, low, medium, high }
    public enum ResizingMode: Sendable { case tile, stretch }

    private let image: CGImage
    private var interpolation = Interpolation.medium
    var elements: [Element] { [.image(image, pixels: interpolation == .none)] }

    public init(_ cgImage: CGImage, scale: CGFloat, orientation: Image.Orientation = .up, label: Text) {
        image = cgImage
    }

    public func interpolation(_ interpolation: Image.Interpolation) -> Image {
        var copy = self
        copy.interpolation = interpolation
        return copy
    }

    public func resizable(capInsets: EdgeInsets = EdgeInsets(), resizingMode: Image.ResizingMode = .stretch) -> Image {
        self
    }
}

public struct Button<Label: View>: Primitive {
    let elements: [Element]
}

extension Button where Label == Text {
    public init<S: StringProtocol>(_ title: S, action: @escaping @MainActor () -> Void) {
        elements = [.button(String(title), action)]
    }
}

public struct ScrollView<Content: View>: Primitive {
    let elements: [Element]

    public init(_ axes: Axis.Set = .vertical, showsIndicators: Bool = true, @ViewBuilder content: () -> Content) {
        elements = SwiftUI.elements(of: content())
    }
}

public struct VStack<Content: View>: Primitive {
    let elements: [Element]

    public init(
        alignment: HorizontalAlignment = .center, spacing: CGFloat? = nil, @ViewBuilder content: () -> Content
    ) {
        elements = SwiftUI.elements(of: content())
    }
}

public struct ForEach<Data: RandomAccessCollection, ID: Hashable, Content: View>: Primitive {
    let elements: [Element]

    public init(
        _ data: Data, id: KeyPath<Data.Element, ID>, @ViewBuilder content: @escaping (Data.Element) -> Content
    ) {
        precondition(Set(data.map { $0[keyPath: id] }).count == data.count, "two elements have the same id")
        elements = data.flatMap { SwiftUI.elements(of: content($0)) }
    }
}

extension View {
    public func font(_ font: Font?) -> some View { self }
    public func aspectRatio(_ aspectRatio: CGFloat? = nil, contentMode: ContentMode) -> some View { self }
    public func padding(_ edges: Edge.Set = .all, _ length: CGFloat? = nil) -> some View { self }

    public func frame(
        minWidth: CGFloat? = nil, idealWidth: CGFloat? = nil, maxWidth: CGFloat? = nil, minHeight: CGFloat? = nil,
        idealHeight: CGFloat? = nil, maxHeight: CGFloat? = nil, alignment: Alignment = .center
    ) -> some View { self }

    public func onAppear(perform action: (() -> Void)? = nil) -> some View {
        Elements(elements: elements(of: self) + (action.map { [.appear($0)] } ?? []))
    }

    public func refreshable(action: @escaping @Sendable () async -> Void) -> some View {
        Elements(elements: elements(of: self) + [.refresh(action)])
    }
}

public struct Font: Sendable {
    public static let title3 = Font()
}

public enum ContentMode: Sendable { case fit, fill }
public struct EdgeInsets: Sendable { public init() {} }
public enum Axis: Sendable { public enum Set: Sendable { case vertical, horizontal } }
public enum Edge: Sendable { public enum Set: Sendable { case all, horizontal, vertical } }
public enum HorizontalAlignment: Sendable { case leading, center, trailing }
public enum Alignment: Sendable { case leading, center, trailing }

// MARK: State

@propertyWrapper
public struct State<Value> {
    private final class Box {
        var value: Value
        init(_ value: Value) { self.value = value }
    }

    private let box: Box

    public init(wrappedValue value: Value) { box = Box(value) }

    public var wrappedValue: Value {
        get { box.value }
        nonmutating set { box.value = newValue }
    }
}

// MARK: Apps

@MainActor @preconcurrency
public protocol Scene {
    associatedtype Body: Scene
    @SceneBuilder @MainActor @preconcurrency var body: Body { get }
}

extension Never: Scene {}

@resultBuilder
public struct SceneBuilder {
    public static func buildBlock<Content: Scene>(_ content: Content) -> Content { content }
}

public struct WindowGroup<Content: View>: Scene {
    let elements: [Element]

    public init(@ViewBuilder content: () -> Content) { elements = SwiftUI.elements(of: content()) }
    public var body: Never { return fatalError("a scene without a body") }
}

@MainActor @preconcurrency
public protocol App {
    associatedtype Body: Scene
    @SceneBuilder @MainActor @preconcurrency var body: Body { get }
    @MainActor @preconcurrency init()
}

protocol Window {
    @MainActor var elements: [Element] { get }
}

extension WindowGroup: Window {}

extension App {
    /// Shows the app to nobody, for as long as the process lives: an app of Apple's systems does not end either.
    @MainActor @preconcurrency
    public static func main() {
        let app = Self()
        for case .appear(let action) in (app.body as? any Window)?.elements ?? [] { action() }
        // A run loop ends where nothing can wake it.
        RunLoop.main.add(Timer(fire: .distantFuture, interval: 1, repeats: true) { _ in }, forMode: .default)
        withExtendedLifetime(app) { RunLoop.main.run() }
        fatalError("the main run loop ended")
    }
}
