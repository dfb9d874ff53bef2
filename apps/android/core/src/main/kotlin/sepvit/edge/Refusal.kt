package sepvit.edge

/** Input that is rejected. [message] is one sentence that says what to do; [kind] is for programs. */
class Refusal(val kind: Kind, override val message: String, cause: Throwable? = null) :
    Exception(message, cause) {

    /** The kinds and their names are the same in every language; see tests/vectors/README.md. */
    enum class Kind(val key: String) {
        NO_MANIFEST("no-manifest"),
        DAMAGED_MANIFEST("damaged-manifest"),
        NEWER_SCHEMA("newer-schema"),
        OLDER_SCHEMA("older-schema"),
        DIGEST("digest"),
        INVALID("invalid"),
        PATH("path"),
        MISSING("missing"),
        CHANGED("changed"),
        ADDED("added"),
        UNSIGNED("unsigned"),
        DAMAGED_SIGNATURE("damaged-signature"),
        UNTRUSTED("untrusted"),
        EXPIRED("expired"),
        TASK("task"),
        TARGET("target"),
        RUNTIME("runtime"),
        GOLDEN("golden"),
        ARCHIVE("archive"),
        IMAGE("image"),
        SIZE("size"),
    }
}
