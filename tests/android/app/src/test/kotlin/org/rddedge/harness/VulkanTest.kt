package org.rddedge.harness

import android.app.Application
import android.content.pm.FeatureInfo
import android.content.pm.PackageManager
import org.junit.Assert.assertEquals
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.RobolectricTestRunner
import org.robolectric.RuntimeEnvironment
import org.robolectric.Shadows.shadowOf
import org.robolectric.annotation.Config

@RunWith(RobolectricTestRunner::class)
@Config(sdk = [35])
class VulkanTest {
    @Test
    fun `a device has Vulkan where it declares version 1-1 or a later one`() {
        val application: Application = RuntimeEnvironment.getApplication()
        for ((declared, expected) in listOf(null to false, 0x400003 to false, 0x401000 to true, 0x403000 to true)) {
            val packages = shadowOf(application.packageManager).apply { clearSystemAvailableFeatures() }
            packages.addSystemAvailableFeature(FeatureInfo()) // as that of OpenGL ES, which has no name
            if (declared != null) packages.addSystemAvailableFeature(vulkan(declared))
            assertEquals(expected, AndroidDevice(application).hasVulkan)
        }
    }

    private fun vulkan(declared: Int) = FeatureInfo().apply {
        name = PackageManager.FEATURE_VULKAN_HARDWARE_VERSION
        version = declared
    }
}
