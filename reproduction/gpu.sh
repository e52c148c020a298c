#!/usr/bin/env bash
# German (replay, union) and the stability gap with a model of some 35M parameters on one GPU: which verdicts change
# with size? Four times the tokens of the small suite in as many steps, at a quarter of the rates.
#
#     REWARM_DATA=/folder/of/corpora reproduction/gpu.sh [experiments] [--arms some of their arms]
#
# Goes on where it was stopped. The three bases are trained first, side by side, and experiments begin when all of them
# are there; a second call with other experiments waits for them. What came of it so far: "On a GPU" in README.md.
# Results go to reproduction/results/large/.
set -euo pipefail
cd "$(dirname "$0")/.."
python="${PYTHON:-.venv/bin/python}"
"$python" - <<'PY'
import sys
import torch

if not torch.cuda.is_available():
    sys.exit("no GPU that torch sees: this would take days; reproduction/suite.py runs on a CPU")
print(torch.cuda.get_device_name(0), f"{torch.cuda.mem_get_info()[1] / 2**30:.0f} GiB")
PY
if [ "$#" -eq 0 ]; then set -- german german-union gap; fi
exec "$python" reproduction/suite.py --large "$@"
