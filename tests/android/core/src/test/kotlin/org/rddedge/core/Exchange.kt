package org.rddedge.core

import java.io.File
import kotlin.system.exitProcess

/** A run of its own for the Python tests: BUNDLE PLAN OUT MIN_PSNR_DB; a plan "-" is the bundle's. */
fun main(arguments: Array<String>) {
    val (bundle, plan, out, least) = arguments
    val options = Options(minPsnrDb = least.toDouble(), where = "host")
    val benchmark = Benchmark(TanhRuntime(), FakeDevice(), options)
    when (val outcome = benchmark.run(File(bundle), File(plan).takeIf { plan != "-" }, File(out))) {
        is Outcome.Finished -> println("${outcome.test.psnrDb} dB, ${outcome.medianMs} ms")

        is Outcome.Failed -> {
            System.err.println(outcome.error.sentence)
            exitProcess(1)
        }
    }
}
