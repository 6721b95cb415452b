package org.rddedge.core

/** What kind of failure `error.json` reports; [wireName] is the Python exception that stands for it. */
enum class ErrorKind(val wireName: String) {
    USAGE("UsageError"), // an argument is wrong
    MISSING("MissingError"), // a file or folder is not there or cannot be read
    CORRUPT("CorruptError"), // a file is truncated, foreign, or not what its hash says
    ARTIFACT("ArtifactError"), // the runtime cannot load or run the artifact, or this device's noise differs
    STORAGE("StorageError"), // the disk is full or a path cannot be written
    THRESHOLD("ThresholdError"), // the artifact's images on this device are too far from the student's
    DEVICE("DeviceError"), // the run was cancelled, or the device failed in another way
}

/** A failure that a person is told of, in one printable sentence. */
class HarnessException(val kind: ErrorKind, text: String, cause: Throwable? = null) :
    Exception(printable(text), cause) {
    val sentence: String get() = message.orEmpty()
}

private const val MAX_TEXT = 1000 // characters, of which one beyond the basic plane is a pair here

/** What Python's `str.isprintable` refuses: controls, formats, lone surrogates, unassigned, separators but the space. */
private val unprintable = Regex("(?! )[\\p{C}\\p{Z}]")

/** Whether a record may hold [text]: one line of at most 1,000 characters, all of them printable. */
internal fun isPrintable(text: String): Boolean =
    text.codePointCount(0, text.length) <= MAX_TEXT && !unprintable.containsMatchIn(text)

/** [text] as a record may hold it: spaces for white space, a question mark for what is not printable. */
fun printable(text: String): String {
    val line = text.trim()
    val end = line.offsetByCodePoints(0, minOf(line.codePointCount(0, line.length), MAX_TEXT))
    return unprintable.replace(line.take(end)) { if (it.value[0].isWhitespace()) " " else "?" }
}

/** The first line of what somebody else's exception says, or its class where it says nothing. */
internal fun reason(error: Throwable): String =
    error.message.orEmpty().trim().lineSequence().first().take(300).ifEmpty { error.javaClass.simpleName }

internal fun corrupt(sentence: String): Nothing = throw HarnessException(ErrorKind.CORRUPT, sentence)
