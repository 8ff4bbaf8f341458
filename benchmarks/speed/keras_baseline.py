"""The Keras baseline: the same network on TensorFlow, one slice at a time, pixels / 255, threshold 0.5.

    python -m speed.keras_baseline NETWORK.keras PATIENT_FOLDER... OUTPUT

The network has the weights of the shipped model, so that its output can be compared with PyTorch's. This
module does not import PyTorch, which a Keras user would not wait for either.
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

#: Trainable parameters, the same as those of the PyTorch network.
PARAMETERS = 10_655_809
_WIDTHS, _CONVOLUTIONS = (64, 128, 256, 512), (2, 2, 3, 3)
#: PyTorch's default; Keras has another one.
_EPSILON = 1e-5
#: Largest difference from the probabilities of the PyTorch network.
TOLERANCE = 1e-3
#: Batches in a round, of which the median counts.
_BATCHES = 3

Method = Callable[[], dict[str, float]]


def build(size: int) -> Any:
    """Build the network; its layers are named like the modules of the PyTorch network.

    Raises
    ------
    ValueError
        If the number of trainable parameters differs.
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
        raise ValueError(f"The Keras network has {found} parameters instead of {PARAMETERS}")
    return network


def copy_weights(network: Any, weights: str) -> None:
    """Copy the weights of one of this project's model files into the Keras network."""
    from safetensors.numpy import load_file

    state = load_file(weights)
    for layer in network.layers:
        if f"{layer.name}.weight" not in state:
            continue
        weight, bias = state[f"{layer.name}.weight"], state[f"{layer.name}.bias"]
        if weight.ndim == 4:  # (out, in, y, x), transposed convolutions (in, out, y, x)
            layer.set_weights([weight.transpose(2, 3, 1, 0), bias])
        else:
            moments = [state[f"{layer.name}.running_{moment}"] for moment in ("mean", "var")]
            layer.set_weights([weight, bias, *moments])


def save(network: str, weights: str, size: int) -> None:
    """Write the Keras file that the benchmarks load."""
    keras_network = build(size)
    copy_weights(keras_network, weights)
    keras_network.save(network)


def load(network: str) -> Any:
    """Load the Keras file as users do."""
    import keras

    return keras.models.load_model(network)


# --- methods -----------------------------------------------------------------------------------


def network_methods(network: str, reference: str, one: int, batch: int) -> list[Method]:
    """Seconds per slice: ``one`` slices one at a time, and a batch of ``batch``.

    Raises
    ------
    ValueError
        If the output differs from that of the PyTorch network, which is in the file ``reference``.
    """
    loaded, known = load(network), np.load(reference)
    output = loaded.predict(known["slices"].transpose(0, 2, 3, 1), verbose=0)[..., 0]
    if np.abs(output - known["probability"]).max() > TOLERANCE:
        raise ValueError("The Keras network gives other probabilities than the PyTorch network")
    size = known["slices"].shape[-1]
    slices = np.random.default_rng(0).standard_normal((max(one, batch), size, size, 3), np.float32)

    def one_at_a_time() -> dict[str, float]:
        began = time.perf_counter()
        for index in range(one):
            loaded.predict(slices[index : index + 1], verbose=0)
        return {"seconds": (time.perf_counter() - began) / one}

    def in_a_batch() -> dict[str, float]:
        # TensorFlow occasionally takes much longer for a batch, so a single one should not decide.
        seconds = []
        for _ in range(_BATCHES):
            began = time.perf_counter()
            loaded.predict(slices[:batch], batch_size=batch, verbose=0)
            seconds.append(time.perf_counter() - began)
        return {"seconds": statistics.median(seconds) / batch, "slowest": max(seconds) / batch}

    return [one_at_a_time, in_a_batch]


def training_methods(size_and_batch: Sequence[tuple[int, int]]) -> list[Method]:
    """Seconds per slice of a training step: cross-entropy, Adam with rate 0.005, no augmentation."""
    import keras

    def method(size: int, batch: int) -> Method:
        network = build(size)
        network.compile(optimizer=keras.optimizers.Adam(0.005), loss="binary_crossentropy")
        rng = np.random.default_rng(0)
        slices = rng.random((batch, size, size, 3), np.float32)
        masks = (rng.random((batch, size, size, 1)) > 0.9).astype(np.float32)

        def step() -> dict[str, float]:
            began = time.perf_counter()
            float(network.train_on_batch(slices, masks))
            return {"seconds": (time.perf_counter() - began) / batch}

        return step

    return [method(size, batch) for size, batch in size_and_batch]


def patient_methods(network: str, folders: Sequence[str], output: str) -> list[Method]:
    """Seconds per patient from folder to mask files, with the network already loaded."""
    loaded = load(network)

    def all_patients() -> dict[str, float]:
        began = time.perf_counter()
        for folder in folders:
            segment(loaded, Path(folder), Path(output))
        return {"seconds": (time.perf_counter() - began) / len(folders)}

    return [all_patients]


def segment(network: Any, folder: Path, output: Path) -> None:
    """Segment one patient, from folder to mask files."""
    files = slice_files(folder)
    (output / folder.name).mkdir(parents=True, exist_ok=True)
    for file in files:
        pixels = tifffile.imread(file) / np.float32(255)
        probability = network.predict(pixels[None], verbose=0)[0, ..., 0]
        write_mask(output / folder.name / f"{file.stem}_mask.tif", probability > 0.5)


def slice_files(folder: Path) -> list[Path]:
    """A patient's image files in the order of their slice numbers."""
    files = [file for file in folder.glob("*.tif") if not file.stem.endswith("_mask")]
    return sorted(files, key=lambda file: int(file.stem.rpartition("_")[2]))


def write_mask(path: Path, mask: npt.NDArray[np.bool_]) -> None:
    """Write a mask like those of the dataset: 8 bit, 0 and 255."""
    tifffile.imwrite(path, mask.astype(np.uint8) * 255)


if __name__ == "__main__":
    loaded_network, *patients, results = sys.argv[1:]
    from_file = load(loaded_network)
    for patient in patients:
        segment(from_file, Path(patient), Path(results))
