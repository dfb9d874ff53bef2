// Run by .ci/web on the package that `npm pack` makes; docs/apps.md has the same lines.
import { readFile } from "node:fs/promises";

const [folder, photo] = process.argv.slice(2);
// docs
import * as ort from "onnxruntime-web";
import { answerOf, decodePng, inputOf, onnxRuntime, Package, Session } from "sepvit-edge";

const read = async (path) => new Uint8Array(await readFile(`${folder}/${path}`)); // or fetch
const pack = await Package.open({ name: folder, read }); // every byte is checked
const session = await Session.open(pack, onnxRuntime(ort));
const image = decodePng(new Uint8Array(await readFile(photo)), photo);
const { pixels, content } = inputOf(image, pack.manifest);
const outputs = await session.run(pixels);
console.log(answerOf(outputs, pack.manifest, pack.labels, image, content));
// end
