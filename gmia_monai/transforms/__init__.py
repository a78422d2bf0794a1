"""Dictionary transforms for chest radiographs, their inverses, and writing back in the input's size and depth.

Names, listed in ``__init__.pyi``, are loaded when they are first asked for: boxes and resampling need no MONAI.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
