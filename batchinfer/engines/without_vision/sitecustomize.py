"""Python runs this at the start of each process that vLLM starts below ours; see `environment.hide_vision_packages`."""

import sys

for name in ("torchvision", "torchaudio", "torchcodec"):
    sys.modules.setdefault(name, None)  # type: ignore[arg-type]
