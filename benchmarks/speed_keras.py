"""The seed's way: the same network in Keras on TensorFlow, slices one at a time, pixels / 255, threshold 0.5.

    python benchmarks/speed_keras.py NETWORK.keras PATIENT_FOLDER... OUTPUT

The network has the weights of the shipped model, so that its answers can be compared. PyTorch is not
imported here: nobody who uses Keras waits for it.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

#: Trainable parameters; that of the PyTorch network, which must be the same.
PARAMETERS = 10_655_809
_WIDTHS, _CONVOLUTIONS = (64, 128, 256, 512), (2, 2, 3, 3)
#: PyTorch's; Keras has another default.
_EPSILON = 1e-5
#: How far probabilities may be from those of the PyTorch network.
TOLERANCE = 1e-3
#: Batches in a turn, whose median counts.
_BATCHES = 3

Way = Callable[[], dict[str, float]]


def build(size: int) -> Any:
    """The network, its layers named as the modules of the PyTorch network.

    Raises
    ------
    ValueError
        If it has not as many trainable parameters.
    """
    import keras
    from keras import layers

    def normalised(x: Any, name: str, index: int) -> Any:
        x = layers.BatchNormalization(epsilon=_EPSILON, name=f"{name}.{index + 1}")(x)
        return layers.Activation("relu")(x)

    def convolutions(x: Any, width: int, count: int, name: str) -> Any:
        for index in range(0, 3 * count, 3):
            x = layers.Conv2D(width, 3, padding="same", name=f"{name}.{index}")(x)
            x = normalised(x, name, index)
        return x

    x = inputs = keras.Input((size, size, 3))
    skips = []
    for level, (width, count) in enumerate(zip(_WIDTHS, _CONVOLUTIONS, strict=True)):
        x = convolutions(x if not level else layers.MaxPooling2D(2)(x), width, count, f"down.{level}")
        skips.append(x)
    for level, (width, skip) in enumerate(zip(_WIDTHS[-2::-1], skips[-2::-1], strict=True)):
        name = f"up.{level}.enlarge"
        x = normalised(layers.Conv2DTranspose(width, 2, strides=2, name=f"{name}.0")(x), name, 0)
        x = layers.Concatenate()([x, skip])
        x = convolutions(x, width, 2, f"up.{level}.convolutions")
    outputs = layers.Conv2D(1, 3, padding="same", activation="sigmoid", name="head")(x)
    network = keras.Model(inputs, outputs)
    found = sum(int(np.prod(weight.shape)) for weight in network.trainable_weights)
    if found != PARAMETERS:
        raise ValueError(f"The network in Keras has {found} parameters instead of {PARAMETERS}")
    return network


def take_weights(network: Any, weights: str) -> None:
    """Give the network the weights of a model file of this project."""
    from safetensors.numpy import load_file

    state = load_file(weights)
    for layer in network.layers:
        if f"{layer.name}.weight" not in state:
            continue
        weight, bias = state[f"{layer.name}.weight"], state[f"{layer.name}.bias"]
        if weight.ndim == 4:  # (out, in, y, x), transposed convolutions (in, out, y, x)
            layer.set_weights([weight.transpose(2, 3, 1, 0), bias])
        else:
            statistics = [state[f"{layer.name}.running_{what}"] for what in ("mean", "var")]
            layer.set_weights([weight, bias, *statistics])


def save(network: str, weights: str, size: int) -> None:
    """Write the file that the programs load."""
    keras_network = build(size)
    take_weights(keras_network, weights)
    keras_network.save(network)


def load(network: str) -> Any:
    """Read it, as people do."""
    import keras

    return keras.models.load_model(network)


# --- what is measured --------------------------------------------------------------------------


def network_ways(network: str, reference: str, one: int, batch: int) -> list[Way]:
    """Seconds a slice: ``one`` slices one at a time, and a batch of ``batch``.

    Raises
    ------
    ValueError
        If the answer is not that of the PyTorch network, which is in the file ``reference``.
    """
    loaded, known = load(network), np.load(reference)
    answer = loaded.predict(known["slices"].transpose(0, 2, 3, 1), verbose=0)[..., 0]
    if np.abs(answer - known["probability"]).max() > TOLERANCE:
        raise ValueError("The network in Keras gives other answers")
    size = known["slices"].shape[-1]
    slices = np.random.default_rng(0).standard_normal((max(one, batch), size, size, 3), np.float32)

    def one_at_a_time() -> dict[str, float]:
        began = time.perf_counter()
        for index in range(one):
            loaded.predict(slices[index : index + 1], verbose=0)
        return {"seconds": (time.perf_counter() - began) / one}

    def in_a_batch() -> dict[str, float]:
        # Now and then TensorFlow takes much longer for one: what counts is not to be a single one.
        took = []
        for _ in range(_BATCHES):
            began = time.perf_counter()
            loaded.predict(slices[:batch], batch_size=batch, verbose=0)
            took.append(time.perf_counter() - began)
        return {"seconds": statistics.median(took) / batch, "slowest": max(took) / batch}

    return [one_at_a_time, in_a_batch]


def training_ways(size_and_batch: Sequence[tuple[int, int]]) -> list[Way]:
    """Seconds a slice of a training step, as the seed trained: cross-entropy, Adam 0.005, no augmentation."""
    import keras

    def way(size: int, batch: int) -> Way:
        network = build(size)
        network.compile(optimizer=keras.optimizers.Adam(0.005), loss="binary_crossentropy")
        chance = np.random.default_rng(0)
        slices = chance.random((batch, size, size, 3), np.float32)
        masks = (chance.random((batch, size, size, 1)) > 0.9).astype(np.float32)

        def step() -> dict[str, float]:
            began = time.perf_counter()
            float(network.train_on_batch(slices, masks))
            return {"seconds": (time.perf_counter() - began) / batch}

        return step

    return [way(size, batch) for size, batch in size_and_batch]


def patient_ways(network: str, folders: Sequence[str], output: str) -> list[Way]:
    """Seconds a patient from folder to mask files, the network loaded before."""
    loaded = load(network)

    def all_patients() -> dict[str, float]:
        began = time.perf_counter()
        for folder in folders:
            segment(loaded, Path(folder), Path(output))
        return {"seconds": (time.perf_counter() - began) / len(folders)}

    return [all_patients]


def segment(network: Any, folder: Path, output: Path) -> None:
    """From a patient's folder to mask files."""
    files = slice_files(folder)
    (output / folder.name).mkdir(parents=True, exist_ok=True)
    for file in files:
        pixels = tifffile.imread(file) / np.float32(255)
        probability = network.predict(pixels[None], verbose=0)[0, ..., 0]
        write_mask(output / folder.name / f"{file.stem}_mask.tif", probability > 0.5)


def slice_files(folder: Path) -> list[Path]:
    """A patient's images by number."""
    files = [file for file in folder.glob("*.tif") if not file.stem.endswith("_mask")]
    return sorted(files, key=lambda file: int(file.stem.rpartition("_")[2]))


def write_mask(path: Path, mask: npt.NDArray[np.bool_]) -> None:
    """As the dataset's masks are: 8 bit, 0 and 255."""
    tifffile.imwrite(path, mask.astype(np.uint8) * 255)


if __name__ == "__main__":
    loaded_network, *patients, results = sys.argv[1:]
    from_file = load(loaded_network)
    for patient in patients:
        segment(from_file, Path(patient), Path(results))
