import Foundation
import HarnessCore
import UIKit
import XCTest

@testable import HarnessApp

@MainActor
final class AppleDeviceTests: XCTestCase {
    func testItSaysWhatItIs() async {
        let info = AppleDevice().info()
        XCTAssertNotNil(info.name.range(of: "^Apple [A-Za-z0-9,_]+$", options: .regularExpression), info.name)
        XCTAssertNotNil(
            info.system.range(of: "^iOS [0-9]+\\.[0-9]+(\\.[0-9]+)?$", options: .regularExpression), info.system)
        XCTAssertTrue(["arm64", "x86_64"].contains(info.machine))
        XCTAssertGreaterThan(info.memoryBytes ?? 0, 1 << 28)
        XCTAssertGreaterThan(info.cores ?? 0, 0)
        XCTAssertNil(info.powerMode)
        ProcessInfo.saves = true
        defer { ProcessInfo.saves = false }
        XCTAssertEqual(AppleDevice().info().powerMode, "low power mode")
    }

    func testBatteryAndForegroundFollowTheSystemsNotifications() async {
        (UIDevice.current.level, UIDevice.current.plug) = (-1, .unknown)
        let device = AppleDevice()
        XCTAssertNil(device.condition().batteryLevel)
        XCTAssertNil(device.condition().charging)
        XCTAssertEqual(device.condition().foreground, false)  // it is not active yet

        (UIDevice.current.level, UIDevice.current.plug) = (0.5, .unplugged)
        NotificationCenter.default.post(name: UIDevice.batteryLevelDidChangeNotification, object: nil)
        NotificationCenter.default.post(name: UIApplication.didBecomeActiveNotification, object: nil)
        var condition = device.condition()
        XCTAssertEqual(condition.batteryLevel, 0.5)
        XCTAssertEqual(condition.charging, false)
        XCTAssertEqual(condition.foreground, true)

        UIDevice.current.plug = .full
        NotificationCenter.default.post(name: UIDevice.batteryStateDidChangeNotification, object: nil)
        NotificationCenter.default.post(name: UIApplication.willResignActiveNotification, object: nil)
        condition = device.condition()
        XCTAssertEqual(condition.charging, true)
        XCTAssertEqual(condition.foreground, false)
    }

    func testHeatIsThrottledFromSeriousOn() async {
        defer { ProcessInfo.heat = .nominal }
        let device = AppleDevice()
        let states: [(ProcessInfo.ThermalState, String, Bool)] = [
            (.nominal, "nominal", false), (.fair, "fair", false), (.serious, "serious", true),
            (.critical, "critical", true),
        ]
        for (state, name, throttled) in states {
            ProcessInfo.heat = state
            XCTAssertEqual(device.thermalState(), name)
            XCTAssertEqual(device.condition().thermalState, name)
            XCTAssertEqual(device.condition().throttled, throttled)
        }
    }

    func testMemoryIsThatOfThisProcess() async throws {
        let device = AppleDevice()
        let before = try XCTUnwrap(device.condition().memoryBytes)
        XCTAssertGreaterThan(before, 1 << 20)
        let block = [UInt8](repeating: 1, count: 1 << 26)
        let condition = device.condition()
        XCTAssertGreaterThan(try XCTUnwrap(condition.memoryBytes), before + (1 << 25))
        XCTAssertGreaterThanOrEqual(try XCTUnwrap(condition.peakMemoryBytes), try XCTUnwrap(condition.memoryBytes))
        XCTAssertEqual(block.last, 1)
    }
}
