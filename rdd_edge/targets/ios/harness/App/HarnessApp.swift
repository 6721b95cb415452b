import Foundation
import SwiftUI

/// Runs one bundle and shows its images and median. The launch arguments are those of the harness's README; without
/// them the app lists the bundles to be tapped.
@main
struct HarnessApp: App {
    @State private var session = Session()

    init() {
        // A driver whose cable is pulled no longer reads the lines, which would otherwise end the app in mid-run.
        signal(SIGPIPE, SIG_IGN)
    }

    var body: some Scene {
        WindowGroup {
            SessionView(session: session)
        }
    }
}

/// The last line of the run, its images, and the bundles to be tapped.
struct SessionView: View {
    let session: Session

    var body: some View {
        ScrollView {
            VStack(alignment: .leading, spacing: 16) {
                Text(session.text)
                    .font(.title3)
                if let image = session.image {
                    Image(image, scale: 1, label: Text("The first images of the run"))
                        .interpolation(.none)  // pixels as they are
                        .resizable()
                        .aspectRatio(contentMode: .fit)
                }
                if !session.isRunning {
                    ForEach(session.bundles, id: \.self) { bundle in
                        Button(bundle.lastPathComponent) { session.tap(bundle) }
                    }
                }
            }
            .frame(maxWidth: .infinity, alignment: .leading)
            .padding()
        }
        .onAppear { session.start(arguments: ProcessInfo.processInfo.arguments) }
        .refreshable { await refresh() }
    }

    private func refresh() async {
        session.offerBundles()
    }
}
