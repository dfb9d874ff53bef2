package sepvit.edge.app

import java.io.File
import kotlin.test.Test
import kotlin.test.assertEquals
import sepvit.edge.app.engine.ExecuTorchEngine

class VersionsTest {
    private val android = generateSequence(File("").absoluteFile) { it.parentFile }
        .first { it.resolve("gradle/libs.versions.toml").isFile }
    private val catalog = Regex("(?m)^(\\S+) = \"([^\"]+)\"$")
        .findAll(android.resolve("gradle/libs.versions.toml").readText().substringBefore("[libraries]"))
        .associate { it.groupValues[1] to it.groupValues[2] }

    @Test
    fun `Maven has Gradle's versions`() {
        val pom = android.resolve("pom.xml").readText()
        for (name in listOf("kotlin", "serialization", "onnxruntime", "junit", "jupiter", "robolectric", "schema-validator")) {
            val version = Regex("<$name.version>(.+)</$name.version>").find(pom)!!.groupValues[1]
            assertEquals(catalog[name], version, name)
        }
    }

    @Test
    fun `the app says which ExecuTorch it has`() = assertEquals(catalog["executorch"], ExecuTorchEngine.VERSION)

    @Test
    fun `Gradle and Maven build the same app`() {
        val gradle = android.resolve("app/build.gradle.kts").readText()
        val maven = android.resolve("app/pom.xml").readText()
        for ((property, option) in listOf("minSdk" to "min-sdk-version", "targetSdk" to "target-sdk-version", "versionCode" to "version-code")) {
            val value = Regex("$property = (\\d+)").find(gradle)!!.groupValues[1]
            assertEquals(value, Regex("--$option (\\d+)").find(maven)!!.groupValues[1], property)
        }
    }
}
