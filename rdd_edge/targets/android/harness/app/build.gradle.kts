plugins {
    alias(libs.plugins.android.application)
    alias(libs.plugins.kotlin.android)
}

android {
    namespace = "org.rddedge.harness"
    compileSdk = 36

    defaultConfig {
        applicationId = "org.rddedge.harness"
        minSdk = 23 // the runtime's
        targetSdk = 36
        versionCode = 3
        versionName = "3"
        ndk {
            abiFilters += listOf("arm64-v8a", "x86_64") // those that the runtime is built for
        }
        buildConfigField("String", "EXECUTORCH_VERSION", "\"${libs.versions.executorch.get()}\"")
    }

    buildTypes {
        release {
            signingConfig = signingConfigs.getByName("debug") // so that it can be installed as it is
        }
    }

    buildFeatures {
        buildConfig = true
    }

    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_17
        targetCompatibility = JavaVersion.VERSION_17
    }
}

kotlin {
    jvmToolchain(17)
}

dependencies {
    implementation(project(":core"))
    implementation(libs.executorch.android.vulkan)
}
