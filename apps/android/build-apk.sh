#!/usr/bin/env bash
# Builds an APK without Gradle or an Android SDK, after `mvn test`, to check what Gradle would build:
# that all code converts for Android 8, and that manifest, resources, packages and signature hold.
#
#     ./build-apk.sh [target/sepvit-edge.apk]
#
# The runtimes' native libraries for Android come with Gradle's archives and are not in it: it would
# install, but load no model.
set -euo pipefail
cd "$(dirname "$0")"
apk=${1:-target/sepvit-edge.apk}

pom() { sed -n "s:.*<$1>\(.*\)</$1>.*:\1:p" pom.xml; }
# Maven's folder of artefacts.
repository=${MAVEN_REPOSITORY:-$HOME/.m2/repository}
artefact() { echo "$repository/${1//.//}/$2/$3/$2-$3.jar"; }
r8=$(artefact com.android.tools r8 "$(pom r8.version)")
android=$(artefact org.robolectric android-all "$(pom android-all.version)")
onnxruntime=$(artefact com.microsoft.onnxruntime onnxruntime "$(pom onnxruntime.version)")
serialization=$(pom serialization.version)
libraries=(
    "$(artefact org.jetbrains.kotlin kotlin-stdlib "$(pom kotlin.version)")"
    "$(artefact org.jetbrains.kotlinx kotlinx-serialization-core-jvm "$serialization")"
    "$(artefact org.jetbrains.kotlinx kotlinx-serialization-json-jvm "$serialization")"
)
java=$(dirname "$(dirname "$(readlink -f "$(command -v javac)")")")

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/dex"

# Classes of the app; those in org/pytorch are stubs and stay out. Of ONNX Runtime's archive for
# computers only the Java classes, which are the same on Android.
(cd app/target/classes && zip -qr "$work/app.jar" sepvit)
(cd core/target/classes && zip -qr "$work/core.jar" sepvit)
(mkdir "$work/ort" && cd "$work/ort" && unzip -q "$onnxruntime" 'ai/onnxruntime/*.class' && zip -qr "$work/ort.jar" ai)
(cd app/target/classes && zip -qr "$work/stubs.jar" org)

# R8 shrinks as in the release build, and fails if a class is missing. It runs once, for seconds:
# compiling it to fast code takes longer than it saves.
cat > "$work/keep.pro" <<'RULES'
-keep class sepvit.edge.app.MainActivity, sepvit.edge.app.EdgeApp { *; }
# Annotations that only compilers read.
-dontwarn org.jetbrains.annotations.**,org.intellij.lang.annotations.**
RULES
java -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp "$r8" com.android.tools.r8.R8 --release --min-api 26 --map-diagnostics info none \
    --lib "$android" --lib "$java" --lib "$work/stubs.jar" \
    --pg-conf app/keep.pro --pg-conf "$work/keep.pro" --output "$work/dex" \
    "$work/app.jar" "$work/core.jar" "$work/ort.jar" "${libraries[@]}"

cp app/target/resources/app.ap_ "$work/unsigned.apk"
(cd "$work/dex" && zip -qr "$work/unsigned.apk" classes*.dex)
zipalign -f -p 4 "$work/unsigned.apk" "$work/aligned.apk"
[ -f debug.keystore ] || keytool -genkeypair -keystore debug.keystore -storepass android \
    -keypass android -alias debug -keyalg RSA -keysize 2048 -validity 10000 -dname CN=debug &> /dev/null
mkdir -p "$(dirname "$apk")"
apksigner sign --ks debug.keystore --ks-pass pass:android --min-sdk-version 26 --out "$apk" "$work/aligned.apk"
rm -f "$apk.idsig"

check() { # NAME COMMAND... : the command's output must hold the words on standard input, a line each
    local name=$1 output
    shift
    output=$("$@" 2>&1) || { echo "$name failed: $output"; exit 1; }
    while read -r words; do
        grep -qF -- "$words" <<< "$output" || { echo "$name lacks: $words"; exit 1; }
    done
}
check signature apksigner verify --verbose --min-sdk-version 26 "$apk" <<< 'Verified using v2 scheme (APK Signature Scheme v2): true'
zipalign -c -p 4 "$apk"
check manifest aapt2 dump badging "$apk" << 'WORDS'
package: name='sepvit.edge.app' versionCode='1' versionName='0.1.0'
sdkVersion:'26'
targetSdkVersion:'36'
uses-permission: name='android.permission.CAMERA'
uses-feature-not-required: name='android.hardware.camera.any'
application-label:'SepViT-Edge'
launchable-activity: name='sepvit.edge.app.MainActivity'
WORDS
# No permission beside the camera: photos and logits stay on the device.
permissions=$(aapt2 dump badging "$apk" | grep -c '^uses-permission')
[ "$permissions" = 1 ] || { echo "the app asks for $permissions permissions"; exit 1; }
contents=$(unzip -l "$apk")
for file in classes.dex resources.arsc AndroidManifest.xml res/layout/main.xml; do
    grep -qF "$file" <<< "$contents" || { echo "the APK lacks $file"; exit 1; }
done
if [ -d app/src/main/assets/packages ]; then
    # What is bundled is inside, byte for byte, and every package's index entry with it.
    mkdir "$work/unpacked"
    unzip -q "$apk" 'assets/packages/*' -d "$work/unpacked"
    diff -r app/src/main/assets/packages "$work/unpacked/assets/packages"
fi
# Of each library in it; Gradle's APK has those of the runtimes, this one has none.
python3 ../../scripts/check_pages.py "$apk"
printf 'APK %s: %s bytes, of which code %s and packages %s\n' "$apk" "$(stat -c %s "$apk")" \
    "$(cat "$work"/dex/*.dex | wc -c)" "$(du -sb app/src/main/assets/packages 2> /dev/null | cut -f1 || echo 0)"
