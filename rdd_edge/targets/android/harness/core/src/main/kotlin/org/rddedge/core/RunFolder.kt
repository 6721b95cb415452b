package org.rddedge.core

import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonElement
import java.io.File
import java.io.FileOutputStream
import java.io.IOException
import java.util.UUID

private val format = Json { prettyPrint = true }

/** A folder written beside [out] that takes its place in one step, so that [out] is there whole or not at all. */
internal class RunFolder(private val out: File) {
    private val parent: File = out.absoluteFile.parentFile
    private val beside = aside()

    init {
        val ours = listOf("record.json", "error.json").any { File(out, it).isFile }
        if (out.exists() && !ours && !(out.isDirectory && out.list().isNullOrEmpty())) {
            throw HarnessException(ErrorKind.USAGE, "$out is there and is not a bench run: choose another folder")
        }
        val leftover = Regex(Regex.escape(".${out.name}.") + "[0-9a-f]{8}")
        parent.listFiles { file -> leftover.matches(file.name) }?.forEach { it.deleteRecursively() }
        if (!beside.mkdirs()) throw HarnessException(ErrorKind.STORAGE, "cannot write $out: $parent is not writable")
    }

    fun write(name: String, document: JsonElement) = write(name) {
        it.write((format.encodeToString(JsonElement.serializer(), document) + "\n").toByteArray())
    }

    /** Writes a file and waits until it is on the disk. Throws [HarnessException] where that fails. */
    fun write(name: String, content: (FileOutputStream) -> Unit) {
        try {
            FileOutputStream(File(beside, name)).use {
                content(it)
                it.fd.sync()
            }
        } catch (error: IOException) {
            throw storageError(out, error)
        }
    }

    fun delete(name: String) = File(beside, name).delete()

    /** Lets [fill] write the folder and puts it in place, or leaves nothing where that fails. */
    fun <T> publish(fill: RunFolder.() -> T): T {
        val old = aside()
        try {
            val result = fill()
            val free = !out.exists() || out.renameTo(old)
            if (!free || !beside.renameTo(out)) throw HarnessException(ErrorKind.STORAGE, "cannot write $out")
            return result
        } finally {
            beside.deleteRecursively()
            if (!out.exists()) old.renameTo(out)
            old.deleteRecursively()
        }
    }

    private fun aside() = File(parent, ".${out.name}.${UUID.randomUUID().toString().take(8)}")
}
