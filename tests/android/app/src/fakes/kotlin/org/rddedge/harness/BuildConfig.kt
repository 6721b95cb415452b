package org.rddedge.harness

/** What Gradle generates of the app's own. */
object BuildConfig {
    const val EXECUTORCH_VERSION = "0-fake"
}
