"""A face parser from an ONNX file. A class map (YAML, docs/label.md) describes its input and the classes of its output."""

from __future__ import annotations

import difflib
import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, field_validator

from collagan_dist import files
from collagan_dist.config import strict_yaml
from collagan_dist.config.strict_yaml import Section, validate
from collagan_dist.distributed import devices
from collagan_dist.errors import ConfigError
from collagan_dist.inference.face_parser import ParserIdentity, run_in_batches
from collagan_dist.inference.face_views import Views
from collagan_dist.types import CLASS_FLIP, CLASSES, World

Index = Annotated[int, Field(ge=0, lt=1 << 16)]  # a table has an entry for each up to the largest
Side = Annotated[int, Field(ge=8, le=4096)]
Layout = Literal["NCHW", "NHWC"]
Three = tuple[float, float, float]
# Score of a class that the network does not have. Finite: resizing would make NaN of infinite ones.
_LOWEST_SCORE = -1e30


class InputSpec(Section):
    """How a picture is given to the network."""

    size: tuple[Side, Side] | None = None
    """[height, width] in pixels; null: that of the network's input, which must then be fixed."""
    channels: Literal["rgb", "bgr"] = "rgb"
    """Order of the colour channels."""
    layout: Layout = "NCHW"
    """Order of the axes: NCHW is (B, 3, height, width)."""
    range: Literal[1, 255] = 1
    """Largest value of a pixel before mean and std: 1 (0 to 1) or 255 (0 to 255)."""
    mean: Three = (0.0, 0.0, 0.0)
    """Subtracted from the pixels of `range`, by channel in the order of `channels`."""
    std: Three = (1.0, 1.0, 1.0)
    """Divisor of each channel after mean is subtracted."""
    views: Views = "both"
    """Squares that the network is run on: the face square, the margin square around it (1.3 times as large), or both.

    Inside the face square its labels take precedence."""

    @field_validator("std")
    @classmethod
    def _positive(cls, std: Three) -> Three:
        if min(std) <= 0:
            raise ValueError("must be above 0")
        return std


class OutputSpec(Section):
    """How the classes are read from the network's output."""

    name: str | Index = 0
    """The output, by name or number: scores (B, C, h, w) or indices (B, h, w)."""
    layout: Layout = "NCHW"
    """Order of the axes of scores: NHWC is (B, h, w, C)."""


class ClassMap(Section):
    """The content of a class map: which of a network's channels are which of our classes."""

    classes: dict[str, tuple[Index, ...]]
    """Our class: the network's channels or indices that belong to it. Those that are not listed are background."""
    sides: Literal["picture", "subject"]
    """Whether the network's left is left in the picture, as in our label maps, or the left of the person (subject)."""
    input: InputSpec = InputSpec()
    """How a picture is given to the network."""
    output: OutputSpec = OutputSpec()
    """How the classes are read from its output."""

    @field_validator("classes")
    @classmethod
    def _known(cls, classes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        for name in classes:
            if name not in CLASSES:
                near = difflib.get_close_matches(name, CLASSES, 1)
                hint = f"did you mean {near[0]}?" if near else f"the classes are {', '.join(CLASSES)}"
                raise ValueError(f"there is no class {name!r}; {hint}")
        flat = [index for indices in classes.values() for index in indices]
        if not flat or len(set(flat)) < len(flat):
            raise ValueError("needs at least one of the network's indices, each at most once")
        return classes

    def table(self, channels: int) -> np.ndarray:
        """Return (channels,): our class of each of the network's indices, with left as left in the picture."""
        result = np.zeros(channels, np.uint8)
        for name, indices in self.classes.items():
            own = CLASSES.index(name)
            result[list(indices)] = CLASS_FLIP[own] if self.sides == "subject" else own
        return result

    @property
    def largest_index(self) -> int:
        return max(index for indices in self.classes.values() for index in indices)


def read_class_map(path: Path) -> tuple[ClassMap, bytes]:
    """Read a class map; return it and the bytes of its file. Raises ConfigError that names file, line and key."""
    text = strict_yaml.read_text(path, "class map", "write one (docs/label.md shows how) and give it by --classes")
    tree, lines = strict_yaml.load(text, str(path))
    return validate(ClassMap, tree, str(path), lines), text.encode()


class OnnxParser:
    """A network that runs in onnxruntime; on the GPU if the installed package supports it."""

    def __init__(self, model: Path, classes: Path) -> None:
        self.map, content = read_class_map(classes)
        self._model, self._classes = model, classes
        self._session, _ = open_session(model)
        self.views = self.map.input.views
        feed = self._session.get_inputs()
        if len(feed) != 1:
            raise ConfigError(
                f"{model}: has {len(feed)} inputs ({', '.join(i.name for i in feed)}); a parser has one, the picture"
            )
        self._feed = feed[0]
        if len(self._feed.shape) != 4:
            raise ConfigError(f"{model}: has an input of shape {self._feed.shape}; a batch of pictures has 4 axes")
        self._type = _TYPES.get(self._feed.type)
        if self._type is None:
            raise ConfigError(f"{model}: has an input of type {self._feed.type}; supported are {', '.join(_TYPES)}")
        # A network may be exported for one batch size only; otherwise the axis has a name or None.
        self._batch = self._feed.shape[0] if isinstance(self._feed.shape[0], int) else None
        self.size = self._input_size()
        self._output = self._pick_output()
        map_hash = hashlib.sha256(content).hexdigest()
        self.identity = ParserIdentity(str(model), files.sha256(model), {"views": self.views, "classes": map_hash})

    def __call__(self, pixels_BHW3: np.ndarray) -> np.ndarray:
        return run_in_batches(self._batch, pixels_BHW3, self._run) if self._batch else self._run(pixels_BHW3)

    def _run(self, pixels_BHW3: np.ndarray) -> np.ndarray:
        entry = self.map.input
        # The order of the class map's documentation: channels, range, mean and std, layout.
        x = pixels_BHW3[..., ::-1] if entry.channels == "bgr" else pixels_BHW3
        x = x.astype(np.float32) * np.float32(entry.range / 255)
        x = (x - np.array(entry.mean, np.float32)) / np.array(entry.std, np.float32)
        if entry.layout == "NCHW":
            x = x.transpose(0, 3, 1, 2)
        (output,) = self._session.run([self._output], {self._feed.name: np.ascontiguousarray(x).astype(self._type)})
        return self._to_our_classes(output)

    def _to_our_classes(self, output: np.ndarray) -> np.ndarray:
        """Return (B, 11, h, w) scores of our classes for the network's scores or indices. Raises ConfigError."""
        if output.ndim == 3:  # indices
            # An index that the class map does not list is background.
            known = self.map.table(self.map.largest_index + 1)
            # Clipped first, because numpy evaluates the lookup for all indices.
            index = output.astype(np.int64)
            own = np.where((index >= 0) & (index < len(known)), known[np.clip(index, 0, len(known) - 1)], 0)
            return (own[:, None] == np.arange(len(CLASSES))[:, None, None]).astype(np.float32)
        if output.ndim != 4:
            raise ConfigError(
                f"{self._model}: output {self._output} has the shape {output.shape}; needs scores (B, C, h, w) or indices (B, h, w)"
            )
        scores = output.transpose(0, 3, 1, 2) if self.map.output.layout == "NHWC" else output
        if self.map.largest_index >= scores.shape[1]:
            raise ConfigError(
                f"{self._classes}: classes names index {self.map.largest_index}, output {self._output} of {self._model} has "
                f"{scores.shape[1]} channels (0..{scores.shape[1] - 1}; output.layout is {self.map.output.layout})"
            )
        known = self.map.table(scores.shape[1])
        # The best of a class's channels, not their sum: so our largest score is where the network's largest is.
        lowest = np.full(scores[:, 0].shape, _LOWEST_SCORE, np.float32)
        by_class = [scores[:, known == c].max(1) if (known == c).any() else lowest for c in range(len(CLASSES))]
        return np.stack(by_class, axis=1).astype(np.float32)

    def _input_size(self) -> tuple[int, int]:
        shape = self._feed.shape
        axes = (2, 3, 1) if self.map.input.layout == "NCHW" else (1, 2, 3)
        height, width, colours = (shape[axis] for axis in axes)
        if isinstance(colours, int) and colours != 3:
            raise ConfigError(
                f"{self._classes}: input.layout is {self.map.input.layout}, but {self._model} has an input of shape {shape}: "
                f"{colours} colours"
            )
        given, fixed = self.map.input.size, (height, width)
        if given is None and not all(isinstance(n, int) for n in fixed):
            raise ConfigError(
                f"{self._classes}: {self._model} takes pictures of any size; set input.size to [height, width]"
            )
        if given is not None and any(isinstance(m, int) and n != m for n, m in zip(given, fixed, strict=True)):
            raise ConfigError(f"{self._classes}: input.size is {list(given)}, {self._model} takes {list(fixed)}")
        # Both given and fixed are equal here.
        return given or (int(height), int(width))

    def _pick_output(self) -> str:
        names = [o.name for o in self._session.get_outputs()]
        wanted = self.map.output.name
        if isinstance(wanted, int) and wanted < len(names):
            return names[wanted]
        if wanted not in names:
            raise ConfigError(f"{self._classes}: output.name is {wanted!r}, {self._model} has {', '.join(names)}")
        return str(wanted)


# Input types of ONNX that pictures are converted to.
_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}


def open_session(model: Path) -> tuple[Any, str]:
    """Return a session of onnxruntime for an ONNX file, and onnxruntime's version. Raises ConfigError, ImportError."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone: it warns of every operator that stays on the CPU
    options.intra_op_num_threads = devices.thread_count(World())
    available = onnxruntime.get_available_providers()
    usable = [p for p in ("CUDAExecutionProvider", "CPUExecutionProvider") if p in available]
    try:
        return onnxruntime.InferenceSession(str(model), options, providers=usable), onnxruntime.__version__
    except Exception as error:  # onnxruntime's own, of no common type
        raise ConfigError(f"{model}: onnxruntime cannot load it ({str(error).splitlines()[0]})") from None
