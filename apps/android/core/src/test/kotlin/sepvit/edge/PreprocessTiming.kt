package sepvit.edge

/**
 * Times the preprocessing of a 12-megapixel photo, for docs:
 *
 *     mvn -q -pl core test-compile dependency:build-classpath -Dmdep.outputFile=target/classpath
 *     java -cp core/target/classes:core/target/test-classes:$(cat core/target/classpath) \
 *         sepvit.edge.PreprocessTimingKt
 */
fun main() {
    val photo = Vectors.noise(4032, 3024, 1)
    val times = List(30) {
        val start = System.nanoTime()
        preprocess(photo, 256, 224)
        (System.nanoTime() - start) / 1e6
    }
    println("4032 x 3024 to 256, centre 224: %.1f ms (median of 20)".format(percentile(times.drop(10).sorted(), 50.0)))
}
