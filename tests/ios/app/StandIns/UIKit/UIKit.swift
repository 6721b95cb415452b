@_exported import Foundation

@MainActor
open class UIDevice {
    public static let current = UIDevice()

    public enum BatteryState: Int, Sendable { case unknown, unplugged, charging, full }

    open var isBatteryMonitoringEnabled = false
    /// What a test lets the device say, once it is asked for.
    public var level: Float = -1
    public var plug = BatteryState.unknown
    open var batteryLevel: Float { isBatteryMonitoringEnabled ? level : -1 }
    open var batteryState: BatteryState { isBatteryMonitoringEnabled ? plug : .unknown }

    public nonisolated static let batteryLevelDidChangeNotification =
        Notification.Name("UIDeviceBatteryLevelDidChangeNotification")
    public nonisolated static let batteryStateDidChangeNotification =
        Notification.Name("UIDeviceBatteryStateDidChangeNotification")
}

@MainActor
open class UIApplication {
    public static let shared = UIApplication()

    public enum State: Int, Sendable { case active, inactive, background }

    open var isIdleTimerDisabled = false
    open var applicationState = State.inactive

    public nonisolated static let didBecomeActiveNotification =
        Notification.Name("UIApplicationDidBecomeActiveNotification")
    public nonisolated static let willResignActiveNotification =
        Notification.Name("UIApplicationWillResignActiveNotification")
}
