package org.rddedge.harness

import org.rddedge.core.ErrorKind
import org.rddedge.core.HarnessException
import org.rddedge.core.Options
import java.io.File

/** A run that a driver asks for: [bundle], [plan] (null: the bundle's own) and [out] are paths. */
class Request(val bundle: File, val plan: File?, val out: File, val options: Options) {
    companion object {
        /**
         * Reads the extras of the README: paths below [root], and for what is only read below [inbox] as well. Throws
         * [HarnessException] for a path that leads elsewhere and for a number that is none.
         */
        fun of(root: File, inbox: File, where: String, extra: (String) -> String?): Request {
            fun path(name: String, vararg folders: File) = extra(name)?.let { path ->
                val file = root.resolve(path).canonicalFile
                val inside = folders.any { file.path.startsWith("${it.canonicalPath}/") }
                if (inside) file else usage("$name is not a path below ${folders.joinToString(" or ")}")
            }

            fun number(name: String) = extra(name)?.let { text ->
                text.toDoubleOrNull()?.takeIf { it.isFinite() && it > 0 } ?: usage("$name is not a positive number")
            }
            val bundle = path("bundle", root, inbox) ?: usage("there is no extra named bundle")
            val out = path("out", root) ?: usage("there is no extra named out")
            val options =
                Options(extra("bundle_sha256"), number("min_psnr_db"), number("stall_seconds") ?: 600.0, where)
            return Request(bundle, path("plan", root, inbox), out, options)
        }

        private fun usage(sentence: String): Nothing = throw HarnessException(ErrorKind.USAGE, sentence)
    }
}
