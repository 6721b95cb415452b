package org.rddedge.harness

import org.rddedge.core.ErrorKind
import org.rddedge.core.HarnessException
import org.rddedge.core.Options
import java.io.File

/** A run that a driver asks for: [bundle], [plan] (null: the bundle's own) and [out] are paths. */
class Request(val bundle: File, val plan: File?, val out: File, val options: Options) {
    companion object {
        /**
         * Reads the extras of the README, whose paths are below [root]. Throws [HarnessException] for a path that
         * leads out of it and for a number that is none.
         */
        fun of(root: File, where: String, extra: (String) -> String?): Request {
            fun path(name: String) = extra(name)?.let { path ->
                val file = File(root, path).canonicalFile
                file.takeIf { it.path.startsWith("${root.canonicalPath}/") } ?: usage("$name is not a path below $root")
            }

            fun number(name: String) = extra(name)?.let { text ->
                text.toDoubleOrNull()?.takeIf { it.isFinite() && it > 0 } ?: usage("$name is not a positive number")
            }
            val bundle = path("bundle") ?: usage("there is no extra named bundle")
            val out = path("out") ?: usage("there is no extra named out")
            val options =
                Options(extra("bundle_sha256"), number("min_psnr_db"), number("stall_seconds") ?: 600.0, where)
            return Request(bundle, path("plan"), out, options)
        }

        private fun usage(sentence: String): Nothing = throw HarnessException(ErrorKind.USAGE, sentence)
    }
}
