"""Make the vectors that Python, Kotlin, Swift and TypeScript are all tested against.

    python tests/make_vectors.py                                # tests/vectors, a few seconds
    python tests/make_vectors.py --package build/vectors/lite   # SepViT-Lite, half a minute

tests/vectors/README.md describes the files. They are committed; test_vectors.py notices when this
program gives others. The SepViT-Lite package has 14 MB and is made when it is needed.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from dense_vectors import (
    class_map_cases,
    dense_self_check_cases,
    detection_cases,
    exponential_cases,
    fit_cases,
    kept_cases,
)
from noise import noise
from onnx import TensorProto, helper
from PIL import Image, ImageCms
from safetensors.numpy import load_file, save, save_file
from signature_vectors import signature_cases
from tiny_packages import detection_package, segmentation_package, write_model, write_tiny

from sepvit_edge.data.preprocess import preprocess, resized_size, to_rgb
from sepvit_edge.errors import SepViTError
from sepvit_edge.model.variants import Preprocessing
from sepvit_edge.package.manifest import (
    CLASS_LOGITS,
    GOLDEN,
    LABELS,
    MANIFEST,
    SCHEMA_VERSION,
    InputFacts,
    ModelFacts,
    OutputFacts,
)
from sepvit_edge.pipeline.drawing import colour_of
from sepvit_edge.profiling.document import SCHEMA_VERSION as PROFILE_VERSION
from sepvit_edge.profiling.runner.golden import MINIMUM_SQNR_DB

VECTORS = Path(__file__).parent / "vectors"
# A result of so few pixels is stored whole: a digest says that something is wrong, not what.
_SHOWN_PIXELS = 40
# The share of pixels or boxes that a dense model's answer must have in common with the golden one:
# rounding moves the borders of classes and drops boxes at the threshold, more so in int8; wrong
# post-processing leaves less than half.
MINIMUM_AGREEMENT = {"fp32": 0.95, "fp16": 0.8, "int8": 0.5}


def _rounded(value: Any) -> float:
    """Twelve digits: exp() and log10() may differ in the last one from one CPU to another."""
    return float(f"{float(value):.12g}")


def _digest(pixels: np.ndarray) -> dict[str, Any]:
    data = np.ascontiguousarray(pixels).tobytes()
    found: dict[str, Any] = {"sha256": hashlib.sha256(data).hexdigest()}
    if len(data) <= 3 * _SHOWN_PIXELS:
        found["pixels"] = data.hex()
    return found


def _random_size(rng: np.random.Generator, largest: int) -> tuple[int, int]:
    width, height = np.exp(rng.uniform(0, np.log(largest), 2)).astype(int)
    return int(width), int(height)


def resize_cases() -> list[dict[str, Any]]:
    """Pillow's BILINEAR alone, from any size to any size: the rows first, then the columns."""
    rng = np.random.default_rng(1)
    sizes = [((1, 1), (1, 1)), ((1, 1), (7, 5)), ((2, 2), (3, 3)), ((5, 4), (5, 4))]
    sizes += [((3, 9), (3, 4)), ((9, 3), (4, 3)), ((1, 40), (5, 8)), ((40, 1), (8, 5))]
    sizes += [((3000, 17), (64, 17)), ((17, 3000), (32, 64)), ((3000, 17), (11, 700))]
    sizes += [((640, 480), (1, 1)), ((1023, 769), (256, 192)), ((255, 257), (256, 256))]
    sizes += [(_random_size(rng, 400), _random_size(rng, 200)) for _ in range(200)]
    cases = []
    for seed, (source, to) in enumerate(sizes, start=1):
        image = Image.fromarray(noise(*source, seed))
        rows = image.resize((to[0], source[1]), Image.Resampling.BILINEAR)
        result = np.asarray(rows.resize(to, Image.Resampling.BILINEAR))
        facts = {"width": source[0], "height": source[1], "seed": seed, "to": list(to)}
        cases.append(facts | _digest(result))
    return cases


def preprocess_cases() -> list[dict[str, Any]]:
    """The whole rule, from pixels of any size to the model's input; refusals are results too."""
    rng = np.random.default_rng(2)
    sizes = [(1, 1), (1, 17), (17, 1), (2, 2), (3000, 17), (17, 3000), (224, 224), (256, 256)]
    sizes += [(2, 9000), (9000, 2), (1280, 720), (223, 257)]
    # Tall ones, whose columns Pillow 13 resizes first unless it is asked for one axis a time.
    sizes += [(103, 251), (150, 401), (275, 597), (173, 398)]
    sizes += [_random_size(rng, 900) for _ in range(140)]
    cases = []
    for seed, size in enumerate(sizes, start=1001):
        image_size = (64, 96, 32, 224)[seed % 4]
        rule = Preprocessing(crop=(0.875, 1.0, 0.9)[seed % 3])
        shorter = rule.resize_side(image_size)
        facts: dict[str, Any] = {
            "width": size[0],
            "height": size[1],
            "seed": seed,
            "resize_shorter_side": shorter,
            "crop_size": image_size,
        }
        try:
            result = preprocess(noise(*size, seed), rule, image_size)
            facts |= {"resized": list(resized_size(size, shorter))} | _digest(result)
        except SepViTError as error:
            facts["refused"] = str(error)
        cases.append(facts)
    # A size alone: nobody wants to make these pixels.
    for size in ((1, 100_000_000), (10_001, 10_000), (2, 2_000_000), (1_500_000, 3)):
        facts = {"width": size[0], "height": size[1], "resize_shorter_side": 256, "crop_size": 224}
        cases.append(facts | {"refused": _refusal_of_size(size, 256)})
    return cases


def _refusal_of_size(size: tuple[int, int], shorter: int) -> str:
    from sepvit_edge.data.preprocess import _check_size

    try:
        _check_size(size, "the image")
        resized_size(size, shorter)
    except SepViTError as error:
        return str(error)
    raise AssertionError(size)


def picture(width: int = 48, height: int = 32) -> Image.Image:
    """A smooth picture without symmetry: each of the eight orientations looks different."""
    y, x = np.mgrid[0:height, 0:width]
    red = 40 + 170 * x / width
    green = 30 + 200 * y / height
    blue = 120 + 90 * np.sin(x / 9 + y / 5)
    return Image.fromarray(np.stack([red, green, blue], 2).round().astype(np.uint8))


def _exif(orientation: int, order: str = "II") -> bytes:
    """EXIF with the orientation alone, in little ("II") or big ("MM") endian order."""
    end = "little" if order == "II" else "big"

    def number(value: int, size: int) -> bytes:
        return value.to_bytes(size, end)  # type: ignore[arg-type]

    entry = number(0x0112, 2) + number(3, 2) + number(1, 4) + number(orientation, 2) + bytes(2)
    tiff = order.encode() + number(42, 2) + number(8, 4) + number(1, 2) + entry + bytes(4)
    return b"Exif\0\0" + tiff


def _swapped_profile() -> bytes:
    """Return an sRGB profile whose red and green primaries are exchanged.

    Who applies it exchanges the channels of a picture for all to see; the rule ignores profiles,
    as Pillow does, and as was done in training.
    """
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    # The bytes that depend on the day and the library.
    profile[24:36] = bytes([7, 232, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0])
    profile[84:100] = bytes(16)
    red, green = profile.index(b"rXYZ", 128), profile.index(b"gXYZ", 128)
    profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(profile)


def image_files(folder: Path) -> list[dict[str, Any]]:
    """Write image files, and return what they must decode to.

    Decoders of JPEG and of 16 bits a channel may round in their own way: `tolerance` levels.
    """
    image = picture()
    expected: dict[str, np.ndarray] = {}
    cases: list[dict[str, Any]] = []

    def add(name: str, tolerance: int, orientation: int, picture: Image.Image, **how: Any) -> None:
        picture.save(folder / name, **how)
        with Image.open(folder / name) as read:
            expected[name] = np.asarray(to_rgb(read))
        height, width = expected[name].shape[:2]
        facts = {"file": name, "orientation": orientation, "tolerance": tolerance}
        cases.append(facts | {"width": width, "height": height})

    jpeg = {"quality": 95, "subsampling": 0}
    for n in range(1, 9):
        order = "II" if n % 2 else "MM"
        add(f"orientation-{n}.jpg", 3, n, image, exif=_exif(n, order), **jpeg)
        add(f"orientation-{n}.png", 0, n, image, exif=_exif(n, order))
    add("orientation-none.jpg", 3, 1, image, **jpeg)
    add("orientation-invalid.jpg", 3, 1, image, exif=_exif(9), **jpeg)
    add("progressive.jpg", 3, 1, image, progressive=True, **jpeg)
    add("subsampled.jpg", 12, 1, image, quality=95, subsampling=2)
    add("grey.jpg", 3, 1, image.convert("L"), quality=95)
    grey = np.asarray(image.convert("L"))
    add("grey.png", 0, 1, image.convert("L"))
    alpha = Image.fromarray(255 - grey)
    transparent, grey_alpha = image.copy(), image.convert("LA")
    transparent.putalpha(alpha)
    grey_alpha.putalpha(alpha)
    add("alpha.png", 0, 1, transparent)
    add("grey-alpha.png", 0, 1, grey_alpha)
    palette = image.quantize(16)
    add("palette.png", 0, 1, palette)
    add("palette-transparent.png", 0, 1, palette, transparency=3)
    add("bilevel.png", 0, 1, Image.fromarray(grey > 127))
    wide = (grey.astype(np.uint16) << 8) + np.arange(48, dtype=np.uint16) * 5
    add("grey-16.png", 1, 1, Image.fromarray(wide))
    add("profile.png", 0, 1, image, icc_profile=_swapped_profile())
    save_file(expected, folder / "expected.safetensors")
    (folder / "expected.safetensors").chmod(0o644)

    refused = {
        "empty.png": b"",
        "text.jpg": b"this is no image\n",
        "truncated.jpg": (folder / "orientation-none.jpg").read_bytes()[:700],
        "truncated.png": (folder / "alpha.png").read_bytes()[:700],
        "line.png": _png(Image.fromarray(noise(1, 20, 5))),
    }
    for name, data in refused.items():
        (folder / name).write_bytes(data)
        cases.append({"file": name, "refused": "size" if name == "line.png" else "image"})
    return cases


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


TINY_LABELS = ("red", "grün", "blue", "grey")


def tiny_package(folder: Path) -> None:
    """Write a complete package of 30 kB that is no SepViT: it tells an image's mean colour.

    Its arithmetic is exact in float32, so every runtime gives the same bits.
    """
    size = 32
    weights = {
        "weight": np.array([[4, -2, -2, 1], [-2, 4, -2, 1], [-2, -2, 4, 1]], np.float32) / 64,
        "bias": np.array([0, 0, 0, -5], np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["pixels"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float"], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("Gemm", ["mean", "weight", "bias"], ["logits"]),
    ]
    session = write_model(
        folder, "mean-colour", nodes, {"logits": [1, 4]}, weights, [1, size, size, 3]
    )
    (folder / LABELS).write_text("\n".join(TINY_LABELS) + "\n", encoding="utf-8")

    rule = Preprocessing(0.875, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    transparent = picture(50, 21)
    transparent.putalpha(Image.linear_gradient("L").resize((50, 21)))
    images = [picture(40, 32), picture(33, 33).convert("L"), transparent]
    tensors = {f"image.{i}": np.asarray(image) for i, image in enumerate(images)}
    pixels = np.stack([preprocess(image, rule, size) for image in images])
    logits = np.concatenate([session.run(None, {"pixels": p[None]})[0] for p in pixels])
    tensors |= {"pixels": pixels, "reference_logits": logits, "package_logits": logits}
    save_file(tensors, folder / GOLDEN)
    (folder / GOLDEN).chmod(0o644)
    write_tiny(
        folder,
        nodes,
        weights,
        ModelFacts(
            variant="tiny",
            name="Mean colour",
            form="mean",
            num_classes=4,
            image_size=size,
            parameters=16,
            macs=12,
        ),
        InputFacts(
            name="pixels",
            shape=[1, size, size, 3],
            dtype="uint8",
            layout="NHWC",
            resize_shorter_side=rule.resize_side(size),
            crop_size=size,
            crop=rule.crop,
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
        ),
        [OutputFacts(name="logits", meaning=CLASS_LOGITS, shape=[1, 4])],
        task="classification",
    )


def package_cases(folder: Path) -> list[dict[str, Any]]:
    """Return changes to the tiny package, and how each must be refused.

    `kind` is the same in every language, None where the package still opens; `python` is that of
    the Python package where it runs what apps and devices do not. The message must
    contain the words in `mentions`, and none of those in `omits`.
    """
    manifest = "manifest.json"
    size = {name: (folder / name).stat().st_size for name in (manifest, "model.onnx", GOLDEN)}

    def flip(file: str, byte: int) -> dict[str, Any]:
        return {"op": "flip", "file": file, "byte": byte, "bit": byte % 8}

    def change(old: str, new: str) -> list[dict[str, Any]]:
        """Edit the manifest and seal it again, as a careful attacker or a wrong exporter would."""
        assert (folder / manifest).read_text(encoding="utf-8").count(old) == 1, old
        return [{"op": "replace", "file": manifest, "from": old, "to": new}, {"op": "seal"}]

    def case(
        name: str,
        kind: str | None,
        edits: list[dict[str, Any]],
        *mentions: str,
        omits: tuple[str, ...] = (),
        python: str = "",
    ) -> None:
        words: dict[str, Any] = {"mentions": list(mentions), "omits": list(omits)}
        if python:
            words["python"] = python
        cases.append({"name": name, "edits": edits, "kind": kind, **words})

    cases: list[dict[str, Any]] = []
    case("untouched", None, [])
    for name in (manifest, LABELS, "model.onnx", GOLDEN):
        kind = "no-manifest" if name == manifest else "missing"
        case(f"{name} is missing", kind, [{"op": "delete", "file": name}], name)
    for byte in (0, size["model.onnx"] // 2, size["model.onnx"] - 1):
        case(f"model, byte {byte}", "changed", [flip("model.onnx", byte)], "model.onnx")
    for byte in (0, 200, size[GOLDEN] // 2, size[GOLDEN] - 1):
        case(f"golden, byte {byte}", "changed", [flip(GOLDEN, byte)], GOLDEN)
    case("labels, one bit", "changed", [flip(LABELS, 1)], LABELS)
    case("model cut short", "changed", [{"op": "truncate", "file": "model.onnx", "bytes": 50}])
    case("model empty", "changed", [{"op": "truncate", "file": "model.onnx", "bytes": 0}])
    case("labels with more", "changed", [{"op": "append", "file": LABELS, "text": "x\n"}])
    case("a file that nobody lists", None, [{"op": "write", "file": "note.txt", "text": "hello"}])

    cut = [{"op": "truncate", "file": manifest, "bytes": size[manifest] // 2}]
    case("manifest cut short", "damaged-manifest", cut, manifest)
    for text in ("", "[]", "{}", "null", "no json", '{"schema_version": }'):
        edits = [{"op": "write", "file": manifest, "text": text}]
        case(f"manifest is {text!r}", "damaged-manifest", edits, manifest)
    edits = [{"op": "replace", "file": manifest, "from": "Mean colour", "to": "Mean color"}]
    case("manifest edited by hand", "digest", edits, manifest)
    edits = [{"op": "append", "file": manifest, "text": "\n"}]
    case("manifest with one more line", "digest", edits, manifest)
    edits = [{"op": "replace", "file": manifest, "from": '"digest": "', "to": '"digest":  "'}]
    case("digest in another form", "digest", edits, manifest)

    for name, kind, edits, mentions, omits in version_edits(folder / manifest):
        case(name, kind, edits, *mentions, omits=omits)

    case(
        "precision unknown",
        "invalid",
        change('"precision": "fp32",\n  "q', '"precision": "int3",\n  "q'),
        "precision",
    )
    case("layout unknown", "invalid", change('"layout": "NHWC"', '"layout": "CHW"'), "layout")
    case(
        "colour order",
        "invalid",
        change('"color_order": "RGB"', '"color_order": "BGR"'),
        "color_order",
    )
    case(
        "resize rule", "invalid", change('"pillow-bilinear-antialias"', '"nearest"'), "resize_rule"
    )
    case("dtype unknown", "invalid", change('"dtype": "uint8"', '"dtype": "int4"'), "dtype")
    case("task unknown", "task", change('"classification"', '"pose"'), "pose")
    # Python runs it, and finds that the package has none of its outputs.
    edits = change('"classification"', '"instance-segmentation"')
    case("task that no app runs", "task", edits, "instance-segmentation", python="invalid")
    case("task is no word", "invalid", change('"classification"', "1"), "task")
    case("no logits", "invalid", change('"class_logits"', '"class_votes"'), "class_logits")
    case("logits in bytes", "invalid", change('"dtype": "float32"', '"dtype": "uint8"'), "float32")
    edits = change('"recipe": {\n    "target": "onnxruntime",', '"recipe": {\n    "target": 5,')
    case("recipe of another kind", None, edits)
    edits = change('"num_classes": 4', '"num_classes": 5')
    case("labels for other classes", "invalid", edits, "4 labels for 5 classes")
    edits = change('"recipe": {', '"recipe": {\n    "lowering": [1, {"form": null}],')
    case("recipe with unknown keys", None, edits)
    edits = change(
        '"recipe": {\n    "target": "onnxruntime",\n    "precision": "fp32"\n  }', '"recipe": "x"'
    )
    case("recipe is no object", "invalid", edits, "recipe")
    edits = change(
        '"options": {}', '"options": {"spin": true, "socs": "X", "level": 3, "beta": 0.5}'
    )
    case("options of the runtime", None, edits)
    case("key misspelt", "invalid", change('"num_classes"', '"classes"'), "classes")
    case("key missing", "invalid", change(',\n    "macs": 12', ""), "macs")
    case("wrong type", "invalid", change('"num_classes": 4', '"num_classes": [4]'), "num_classes")
    case(
        "hash is no hash",
        "invalid",
        change('"sha256": "' + _sha(folder / LABELS), '"sha256": "12ab'),
        "sha256",
    )
    case("size below zero", "invalid", change('"size": 20', '"size": -1'), "size")
    case("mean of two", "invalid", change('"mean": [\n      0.5,', '"mean": ['), "mean")

    for path in ("../labels.txt", "/etc/hosts", "a/../../x", "..\\\\x", "a/../labels.txt", ".."):
        edits = change('"path": "labels.txt"', f'"path": "{path}"')
        case(f"path {path}", "path", edits, "leaves the folder")
    edits = [{"op": "link", "file": LABELS, "target": "../outside.txt", "text": "outside"}]
    case("link that leaves the folder", "path", edits, "leaves the folder")
    edits = change('"path": "labels.txt"', '"path": "other/labels.txt"')
    case("path to nothing", "missing", edits, "other/labels.txt")
    return cases


def version_edits(
    manifest: Path,
) -> list[tuple[str, str | None, list[dict[str, Any]], list[str], tuple[str, ...]]]:
    """Return the cases about versions: name, kind, edits, words mentioned and words left out."""
    stated = f'"schema_version": "{SCHEMA_VERSION}"'
    text = manifest.read_text(encoding="utf-8")

    def replace(*pairs: tuple[str, str]) -> list[dict[str, Any]]:
        for old, _ in pairs:
            assert text.count(old) == 1, old
        edits = [{"op": "replace", "file": MANIFEST, "from": a, "to": b} for a, b in pairs]
        return [*edits, {"op": "seal"}]

    def stating(value: str) -> list[dict[str, Any]]:
        return replace((stated, f'"schema_version": {value}'))

    def written(document: object) -> list[dict[str, Any]]:
        return [{"op": "write", "file": MANIFEST, "text": json.dumps(document)}]

    anywhere = (
        ('"digest"', '"lineage": {"parent": null, "depth": 2},\n  "digest"'),
        ('"variant": "tiny"', '"variant": "tiny",\n    "colour": 1'),
        ('"layout": "NHWC"', '"layout": "NHWC",\n    "planes": [1, 2]'),
        ('"meaning": "class_logits"', '"meaning": "class_logits",\n      "unit": null'),
        ('"minimum": "1.17"', '"minimum": "1.17",\n    "providers": ["CPU"]'),
        ('"trained_on": null', '"trained_on": null,\n    "licence": "CC0"'),
        ('"size": 20', '"size": 20,\n      "role": "labels"'),
        ('"device": "CPU"', '"device": "CPU",\n    "clusters": {"big": 4}'),
        ('"ops": 3', '"ops": 3,\n        "bytes": 1e3'),
        ('"ReduceMean": 1', '"ReduceMean": 1,\n          "Attention": 1'),
    )
    command = "python -m sepvit_edge.export --target onnxruntime --precision fp32"
    new = "newer-schema"
    cases: list[tuple[str, str | None, list[dict[str, Any]], list[str], tuple[str, ...]]] = [
        ("unknown keys everywhere", None, replace(*anywhere), [], ()),
        (
            "newer minor with unknown keys everywhere",
            None,
            replace((stated, '"schema_version": "2.7"'), *anywhere),
            [],
            (),
        ),
        ("newer minor of two digits", None, stating('"2.10"'), [], ()),
        ("newer major", new, stating('"3.0"'), ["3.0", "update"], ()),
        ("newer major of two digits", new, stating('"10.0"'), ["10.0", "update"], ()),
        # An old reader must not guess at a new schema, whatever else has changed.
        (
            "newer major, nothing as before",
            new,
            written({"schema_version": "3.1", "parts": [], "digest": 5}),
            ["3.1", "update"],
            (),
        ),
        ("version 1", "older-schema", stating("1"), ["version 1", command], ()),
        (
            "version 1 of another target",
            "older-schema",
            written({"schema_version": 1, "target": "ethos-u", "precision": "int8"}),
            ["python -m sepvit_edge.export --target ethos-u --precision int8"],
            (),
        ),
        (
            "version 1 without a target",
            "older-schema",
            written({"schema_version": 1, "precision": None}),
            ["python -m sepvit_edge.export"],
            ("--target", "--precision"),
        ),
    ]
    for target in ("x; rm -rf ~", "--force", "$(reboot)", "a\nb", "A", "x" * 41, 5, ["openvino"]):
        document = {"schema_version": 1, "target": target, "precision": f"fp32 {target}"}
        command, omits = "python -m sepvit_edge.export", ("--target", "--precision", "rm -rf")
        name = f"version 1, its target is {json.dumps(target)[:20]}"
        cases.append((name, "older-schema", written(document), [command], omits))
    for value in (
        *("2", "2.0", "3", "0", "true", "null", '["2.0"]', '{"major": 2}'),
        *('"2"', '"2.0.0"', '"2.x"', '"v2.0"', '""', '"02.0"', '"2.00"', '" 2.0"', '"2.0\\n"'),
        *('"-2.0"', '"2,0"', '"12345.0"', '"\uff12.0"'),
    ):
        cases.append((f"no version: {value}", "damaged-manifest", stating(value), [MANIFEST], ()))
    return cases


def session_cases() -> list[dict[str, Any]]:
    """Return packages that are whole and that this program cannot run."""

    def change(old: str, new: str) -> list[dict[str, Any]]:
        edit = {"op": "replace", "file": "manifest.json", "from": old, "to": new}
        return [edit, {"op": "seal"}]

    target = change('"target": "onnxruntime",\n  "precision"', '"target": "abacus",\n  "precision"')
    return [
        {"name": "target", "edits": target, "kind": "target", "mentions": ["abacus"]},
        {
            "name": "runtime of tomorrow",
            "edits": change('"minimum": "1.17"', '"minimum": "1.99"'),
            "kind": "runtime",
            "mentions": ["1.99 or later"],
        },
        {
            "name": "runtime of yesterday",
            "edits": change('"below": "2"', '"below": "1.18"'),
            "kind": "runtime",
            "mentions": ["older than 1.18"],
        },
    ]


def _sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def profile_cases() -> list[dict[str, Any]]:
    """Return profile documents, and how a reader of version 2 takes each."""
    document: dict[str, Any] = {
        # What an app writes: later minor versions only add keys that it need not know.
        "schema_version": f"{PROFILE_VERSION.split('.')[0]}.0",
        "complete": True,
        "producer": {"name": "web-app", "version": "1.0"},
        "package": {
            "digest": "0" * 64,
            "variant": "tiny",
            "target": "onnxruntime",
            "precision": "fp32",
            "image_size": 32,
            "num_classes": 4,
            "batch": 1,
            "model_mb": 0.000309,
            "macs": 12,
        },
        "runtime": {"name": "onnxruntime", "version": "1.31.1", "execution": "wasm"},
        "device": {"name": "any"},
        "golden": {
            "images": 3,
            "sqnr_db": None,
            "minimum_sqnr_db": 80,
            "max_abs_error": 0,
            "top1_agreement": 1,
            "passed": True,
        },
        "latency": {
            "runs": 2,
            "min_ms": 1,
            "mean_ms": 2,
            "p50_ms": 2,
            "p90_ms": 2.8,
            "p99_ms": 2.98,
            "max_ms": 3,
            "runs_ms": [1, 3],
        },
    }
    newer = document | {
        "schema_version": "2.4",
        "weather": {"cloudy": True},
        "device": document["device"] | {"colour": "grey"},
        "latency": document["latency"] | {"p999_ms": 2.998},
    }
    cases: list[tuple[str, Any, str | None, list[str]]] = [
        ("this version", document, None, []),
        ("newer minor with unknown keys", newer, None, []),
        ("unknown keys", newer | {"schema_version": document["schema_version"]}, None, []),
        # Version 1 has the same fields.
        ("version 1", document | {"schema_version": 1}, None, []),
        ("newer major", {"schema_version": "3.0"}, "newer-schema", ["3.0", "update"]),
        ("newer major of two digits", {"schema_version": "10.0"}, "newer-schema", ["10.0"]),
        ("no version", {"complete": True}, "damaged-document", []),
        ("a list", [document], "damaged-document", []),
    ]
    cases += [
        (f"no version: {value!r}", document | {"schema_version": value}, "damaged-document", [])
        for value in (2, True, None, "2", "2.0.0", "v2.0", "")
    ]
    latency = {key: value for key, value in document["latency"].items() if key != "p50_ms"}
    cases += [
        ("key missing", document | {"latency": latency}, "invalid", ["p50_ms"]),
        ("precision unknown", _with_precision(document, "int3"), "invalid", ["precision"]),
    ]
    names = ("name", "document", "kind", "mentions")
    return [dict(zip(names, case, strict=True)) for case in cases]


def _with_precision(document: dict[str, Any], precision: str) -> dict[str, Any]:
    return document | {"package": document["package"] | {"precision": precision}}


def version_cases() -> list[dict[str, Any]]:
    """Runtime versions and the range of a manifest.

    `python` is the exact rule. An app compares the lower bound by major and minor number only:
    the archives for phones have patch releases of their own.
    """
    table = [
        ("1.31.1", "1.23", "1.32", True, True),
        ("1.23.0", "1.23", "1.32", True, True),
        ("1.22.9", "1.23", "1.32", False, False),
        ("1.32.0", "1.23", "1.32", False, False),
        ("1.9.0", "1.23", "1.32", False, False),
        ("1.4.1", "1.4.1", "1.5", True, True),
        ("1.4.0", "1.4.1", "1.5", False, True),
        ("1.3.9", "1.4.1", "1.5", False, False),
        ("1.5.0", "1.4.1", "1.5", False, False),
        ("2.0", "1.17", "2", False, False),
        ("2026.4.1", "2026.4", "2026.5", True, True),
    ]
    names = ("version", "minimum", "below", "python", "app")
    return [dict(zip(names, row, strict=True)) for row in table]


def self_check_cases(folder: Path) -> list[dict[str, Any]]:
    """Golden vectors that were tampered with, and what the self-check must say.

    Each changes one tensor of golden.safetensors: `values` from `offset` on, counted in elements.
    """
    golden = load_file(folder / GOLDEN)
    flat = golden["pixels"].reshape(-1)
    at = 32 * 32 * 3 + 700  # in image 1
    values = [int(flat[at]) ^ 7, int(flat[at + 1]) ^ 1]
    apart = [abs(int(flat[at + i]) - value) for i, value in enumerate(values)]
    logits = golden["package_logits"]

    def logit(tensor: str, change: float) -> dict[str, Any]:
        return {"tensor": tensor, "offset": 5, "values": [float(logits[1, 1] + change)]}

    def sqnr(change: float) -> float:
        s = logits.astype(np.float64)
        s[1, 1] += change
        return _rounded(10 * np.log10((s**2).sum() / change**2))

    return [
        {"name": "untouched", "edit": None, "passed": True, "fails_at": None},
        {
            "name": "pixels differ",
            "edit": {"tensor": "pixels", "offset": at, "values": values},
            "passed": False,
            "fails_at": "pixels",
            "image": 1,
            "different_values": 2,
            "max_difference": max(apart),
        },
        {
            "name": "logits differ",
            "edit": logit("package_logits", 2.5),
            "passed": False,
            "fails_at": "logits",
            "image": 1,
            "max_difference": 2.5,
            "sqnr_db": sqnr(2.5),
        },
        {
            "name": "logits differ by rounding",
            "edit": logit("package_logits", 2**-17),
            "passed": True,
            "fails_at": None,
            "max_difference": 2**-17,
            "sqnr_db": sqnr(2**-17),
        },
        {
            "name": "logits differ by a little less than the limit",
            "edit": logit("package_logits", 2**-12),
            "passed": True,
            "fails_at": None,
            "max_difference": 2**-12,
            "sqnr_db": sqnr(2**-12),
        },
        {
            "name": "logits differ by a little more than the limit",
            "edit": logit("package_logits", 2**-11),
            "passed": False,
            "fails_at": "logits",
            "image": 1,
            "max_difference": 2**-11,
            "sqnr_db": sqnr(2**-11),
        },
        {
            "name": "the reference differs, which is what its parity states",
            "edit": logit("reference_logits", 2.5),
            "passed": True,
            "fails_at": None,
            "reference_sqnr_db": sqnr(2.5),
        },
    ]


def minimum_sqnr_cases() -> list[dict[str, Any]]:
    """How near to the golden logits another device must come, by precision."""
    return [
        {"precision": name, "minimum_sqnr_db": db, "minimum_agreement": MINIMUM_AGREEMENT[name]}
        for name, db in MINIMUM_SQNR_DB.items()
    ]


def safetensors_cases() -> list[dict[str, Any]]:
    """Small files, good and bad."""

    def entry(dtype: str, shape: list[int], start: int, end: int) -> dict[str, Any]:
        return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}

    def raw(header: object, body: bytes, length: int | None = None) -> bytes:
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        return (len(text) if length is None else length).to_bytes(8, "little") + text + body

    arrays = {
        "bytes": np.arange(6, dtype=np.uint8).reshape(2, 3),
        "floats": np.array([0.5, -1.25, 3e38, -0.0], np.float32),
        "scalar": np.array(7.0, np.float32),
        "nothing": np.zeros((0, 4), np.float32),
    }
    listed = {
        name: {
            "dtype": "U8" if a.dtype == np.uint8 else "F32",
            "shape": list(a.shape),
            "values": [float(v) for v in a.reshape(-1)],
        }
        for name, a in arrays.items()
    }
    good = [
        ("all kinds", save(arrays, {"images": "a notice"}), listed),
        ("no tensor", save({}), {}),
        (
            "padded header",
            raw(json.dumps({"a": entry("U8", [2], 0, 2)}).encode() + b"   ", b"\1\2"),
            {"a": {"dtype": "U8", "shape": [2], "values": [1.0, 2.0]}},
        ),
    ]
    one = {"a": entry("F32", [2], 0, 8)}
    bad = [
        ("empty", b""),
        ("seven bytes", bytes(7)),
        ("header longer than the file", raw(one, bytes(8), 500)),
        ("header of exabytes", raw(one, bytes(8), 2**63 + 1)),
        ("header is no JSON", raw(b"{nonsense}", bytes(8))),
        ("header is a list", raw([1], b"")),
        ("body cut short", raw(one, bytes(7))),
        ("body too long", raw(one, bytes(9))),
        ("shape and offsets disagree", raw({"a": entry("F32", [3], 0, 8)}, bytes(8))),
        ("offsets backwards", raw({"a": entry("F32", [2], 8, 0)}, bytes(8))),
        ("hole between tensors", raw(one | {"b": entry("U8", [1], 9, 10)}, bytes(10))),
        ("overlapping tensors", raw(one | {"b": entry("U8", [4], 4, 8)}, bytes(8))),
        ("unknown dtype", raw({"a": entry("X9", [2], 0, 8)}, bytes(8))),
        ("shape overflows", raw({"a": entry("F32", [2**32, 2**32], 0, 8)}, bytes(8))),
        ("negative dimension", raw({"a": entry("F32", [-2], 0, 8)}, bytes(8))),
    ]
    return [{"name": n, "hex": data.hex(), "tensors": t} for n, data, t in good] + [
        {"name": name, "hex": data.hex(), "tensors": None} for name, data in bad
    ]


def top_k_cases() -> list[dict[str, Any]]:
    """The most probable classes; equal logits keep the order of the classes."""
    rng = np.random.default_rng(3)
    rows = [
        ([1.0, 3.0, 2.0], 3),
        ([2.0, 2.0, 2.0, 2.0], 3),
        ([1.0, 5.0, 5.0, 1.0, 5.0], 2),
        ([0.0, -0.0, 0.0], 3),
        ([1000.0, 999.0, -1000.0], 3),
        ([-88.0, -90.5, -3e38], 2),
        ([4.0], 3),
        ([1.0, 2.0], 5),
        (rng.normal(0, 3, 10).astype(np.float32).tolist(), 3),
        (rng.normal(0, 3, 1000).astype(np.float32).round(1).tolist(), 5),
    ]
    cases = []
    for logits, k in rows:
        values = np.array(logits, np.float32).astype(np.float64)
        probabilities = np.exp(values - values.max())
        probabilities /= probabilities.sum()
        best = np.argsort(-probabilities, kind="stable")[:k]
        facts = {
            "indices": best.tolist(),
            "probabilities": [_rounded(p) for p in probabilities[best]],
        }
        cases.append({"logits": values.tolist(), "k": k} | facts)
    return cases


def statistics_cases() -> list[dict[str, Any]]:
    """Latency statistics: percentiles are interpolated linearly between the two nearest ranks."""
    rng = np.random.default_rng(4)
    samples = [[3.5], [1.0, 2.0], [5.0, 1.0, 4.0], [2.0] * 7, [0.001, 1e6], list(range(1, 101))]
    samples += [rng.lognormal(2, 0.3, n).round(4).tolist() for n in (10, 50, 333, 1000)]
    return [
        {
            "samples": [float(s) for s in x],
            "count": len(x),
            "p50": _rounded(np.percentile(x, 50)),
            "p90": _rounded(np.percentile(x, 90)),
            "p99": _rounded(np.percentile(x, 99)),
            "max": float(np.max(x)),
            "mean": _rounded(np.mean(x)),
        }
        for x in samples
    ]


def apply_edits(folder: Path, edits: list[dict[str, Any]]) -> None:
    """Damage a copy of the tiny package as a case says."""
    for edit in edits:
        path = folder / edit.get("file", "manifest.json")
        match edit["op"]:
            case "flip":
                data = bytearray(path.read_bytes())
                data[edit["byte"]] ^= 1 << edit["bit"]
                path.write_bytes(data)
            case "truncate":
                path.write_bytes(path.read_bytes()[: edit["bytes"]])
            case "append":
                path.write_bytes(path.read_bytes() + edit["text"].encode())
            case "write":
                path.write_bytes(edit["text"].encode())
            case "delete":
                path.unlink()
            case "replace":
                path.write_bytes(
                    path.read_bytes().replace(edit["from"].encode(), edit["to"].encode())
                )
            case "seal":
                seal(path)
            case "link":
                (folder / edit["target"]).write_text(edit["text"])
                path.unlink()
                path.symlink_to(edit["target"])
            case other:
                raise AssertionError(other)


def seal(manifest: Path) -> None:
    """Give a manifest the digest that its text has now."""
    field = re.compile(rb'("digest": ")[0-9a-f]{64}')
    data = field.sub(rb"\g<1>" + b"0" * 64, manifest.read_bytes())
    digest = hashlib.sha256(data).hexdigest().encode()
    manifest.write_bytes(field.sub(rb"\g<1>" + digest, data))


def make_vectors(folder: Path) -> None:
    """Write all vectors into an empty folder."""
    package, images = folder / "package", folder / "images"
    package.mkdir(parents=True)
    images.mkdir()
    tiny_package(package)
    dense = [picture(40, 32), picture(21, 50).convert("L"), picture(33, 20)]
    for task, write in (("segmentation", segmentation_package), ("detection", detection_package)):
        (folder / task).mkdir()
        write(folder / task, dense)
    documents = {
        "resize": resize_cases(),
        "preprocess": preprocess_cases(),
        "images": image_files(images),
        "packages": package_cases(package),
        "sessions": session_cases(),
        "signatures": signature_cases(package),
        "profiles": profile_cases(),
        "versions": version_cases(),
        "self_check": self_check_cases(package),
        "dense_self_check": dense_self_check_cases(folder),
        "minimum_sqnr": minimum_sqnr_cases(),
        "kept": kept_cases(),
        "colours": [{"class": i, "rgb": colour_of(i)} for i in (*range(20), 149)],
        "safetensors": safetensors_cases(),
        "top_k": top_k_cases(),
        "statistics": statistics_cases(),
        "fit": fit_cases(),
        "exponential": exponential_cases(),
        "class_maps": class_map_cases(),
        "detections": detection_cases(),
    }
    for name, cases in documents.items():
        lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
        (folder / f"{name}.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def make_package(folder: Path) -> None:
    """Export SepViT-Lite on digits at 64 pixels, for every ONNX Runtime since 1.17."""
    import sepvit_edge
    from sepvit_edge.checkpoints.builtin import builtin_checkpoints
    from sepvit_edge.config.recipe import load_recipe

    model = sepvit_edge.load_checkpoint(builtin_checkpoints()["lite-digits"], image_size=64)
    recipe = load_recipe("onnxruntime-opset20-fp32")
    sepvit_edge.export_package(model, output=folder, recipe=recipe, images=8, force=True)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Make the vectors shared by Python and the apps.")
    parser.add_argument("--package", type=Path, help="Export SepViT-Lite into this folder instead.")
    arguments = parser.parse_args()
    if arguments.package:
        return make_package(arguments.package)
    for path in VECTORS.iterdir():
        if path.name != "README.md":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    make_vectors(VECTORS)


if __name__ == "__main__":
    main()
