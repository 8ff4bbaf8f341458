"""Choosing what to train on."""

from __future__ import annotations

import pytest

from napari_lgg_seg.widgets.finetune.folder_scan import SCANNING


@pytest.fixture
def choose_patients_folder(wait_until):
    """Factory: choose a folder of patients in a widget, and wait until it is scanned."""

    def choose(widget, folder):
        widget.controls.source.value = "Folder of patients..."
        widget.controls.folder.value = folder
        wait_until(lambda: widget.controls.found.value not in ("", SCANNING))

    return choose
