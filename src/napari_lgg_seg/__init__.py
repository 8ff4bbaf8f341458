"""Segment lower-grade glioma in brain MRI with a U-Net, in napari.

The public names are listed in ``__init__.pyi`` and loaded when they are first used, so that importing the
package costs nothing.

>>> import napari_lgg_seg as lgg
>>> lgg.SegmentOptions().clean_up is None  # the model's own
True
"""

from __future__ import annotations

import lazy_loader

from ._version import __version__ as __version__

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
