plugins {
    `java-library`
    alias(libs.plugins.kotlin.jvm)
    alias(libs.plugins.kotlin.serialization)
}

kotlin {
    jvmToolchain(17)
    compilerOptions.allWarningsAsErrors = true
}

dependencies {
    api(libs.serialization.json)
    testImplementation(libs.kotlin.test.junit5)
    testImplementation(libs.jupiter)
    testImplementation(libs.schema.validator)
}

tasks.test {
    useJUnitPlatform()
    systemProperty("vectors", rootDir.resolve("../../tests/vectors"))
    systemProperty("schemas", rootDir.resolve("../../export"))
}
