"""Published errors on the long-horizon benchmarks, as (MSE, MAE) by horizon, scored on scaled data as here.

Sources: S-Mamba arXiv 2403.11144, Bi-Mamba+ arXiv 2404.15772, iTransformer arXiv 2310.06625 (with PatchTST, DLinear and
RLinear as it reports them at lookback 96), TimeMixer arXiv 2405.14616, TQNet arXiv 2505.12917 (one seed), PatchTST
arXiv 2211.14730, DLinear and NLinear arXiv 2205.13504, xPatch arXiv 2412.17323 (lookback searched, every test window).
"""

from __future__ import annotations

HORIZONS = (96, 192, 336, 720)

Errors = tuple[tuple[float, float], ...]

LOOKBACK_96: dict[str, dict[str, Errors]] = {
    "etth1": {
        "S-Mamba": ((0.386, 0.405), (0.443, 0.437), (0.489, 0.468), (0.502, 0.489)),
        "Bi-Mamba+": ((0.378, 0.395), (0.427, 0.428), (0.471, 0.445), (0.470, 0.457)),
        "iTransformer": ((0.386, 0.405), (0.441, 0.436), (0.487, 0.458), (0.503, 0.491)),
        "PatchTST": ((0.414, 0.419), (0.460, 0.445), (0.501, 0.466), (0.500, 0.488)),
        "DLinear": ((0.386, 0.400), (0.437, 0.432), (0.481, 0.459), (0.519, 0.516)),
        "RLinear": ((0.386, 0.395), (0.437, 0.424), (0.479, 0.446), (0.481, 0.470)),
        "TimeMixer": ((0.375, 0.400), (0.429, 0.421), (0.484, 0.458), (0.498, 0.482)),
        "TQNet": ((0.371, 0.393), (0.428, 0.426), (0.476, 0.446), (0.487, 0.470)),
    },
    "etth2": {
        "S-Mamba": ((0.296, 0.348), (0.376, 0.396), (0.424, 0.431), (0.426, 0.444)),
        "Bi-Mamba+": ((0.291, 0.342), (0.368, 0.392), (0.407, 0.424), (0.421, 0.439)),
        "iTransformer": ((0.297, 0.349), (0.380, 0.400), (0.428, 0.432), (0.427, 0.445)),
        "PatchTST": ((0.302, 0.348), (0.388, 0.400), (0.426, 0.433), (0.431, 0.446)),
        "DLinear": ((0.333, 0.387), (0.477, 0.476), (0.594, 0.541), (0.831, 0.657)),
        "RLinear": ((0.288, 0.338), (0.374, 0.390), (0.415, 0.426), (0.420, 0.440)),
        "TimeMixer": ((0.289, 0.341), (0.372, 0.392), (0.386, 0.414), (0.412, 0.434)),
        "TQNet": ((0.295, 0.343), (0.367, 0.393), (0.417, 0.427), (0.433, 0.446)),
    },
    "ettm1": {"TQNet": ((0.311, 0.353), (0.356, 0.378), (0.390, 0.401), (0.452, 0.440))},
    "ettm2": {"TQNet": ((0.173, 0.256), (0.238, 0.298), (0.301, 0.340), (0.397, 0.396))},
}

LONG_LOOKBACK: dict[str, dict[str, Errors]] = {
    "etth1": {
        "PatchTST-64": ((0.370, 0.400), (0.413, 0.429), (0.422, 0.440), (0.447, 0.468)),
        "TimeMixer": ((0.361, 0.390), (0.409, 0.414), (0.430, 0.429), (0.445, 0.460)),
        "DLinear": ((0.375, 0.399), (0.405, 0.416), (0.439, 0.443), (0.472, 0.490)),
        "NLinear": ((0.374, 0.394), (0.408, 0.415), (0.429, 0.427), (0.440, 0.453)),
        "xPatch": ((0.363, 0.390), (0.404, 0.414), (0.432, 0.432), (0.451, 0.457)),
    },
    "etth2": {
        "PatchTST-64": ((0.274, 0.337), (0.341, 0.382), (0.329, 0.384), (0.379, 0.422)),
        "TimeMixer": ((0.271, 0.330), (0.317, 0.402), (0.332, 0.396), (0.342, 0.408)),
        "DLinear": ((0.289, 0.353), (0.383, 0.418), (0.448, 0.465), (0.605, 0.551)),
        "NLinear": ((0.277, 0.338), (0.344, 0.381), (0.357, 0.400), (0.394, 0.436)),
        "xPatch": ((0.274, 0.333), (0.336, 0.374), (0.366, 0.400), (0.388, 0.425)),
    },
    "ettm1": {"xPatch": ((0.287, 0.330), (0.328, 0.356), (0.363, 0.379), (0.426, 0.417))},
    "ettm2": {"xPatch": ((0.157, 0.243), (0.216, 0.285), (0.271, 0.323), (0.358, 0.377))},
}


def published_rows(name: str, horizon: int) -> list[dict[str, float | str]]:
    """What was published for a data set and horizon: model, lookback (96, or long), MSE and MAE."""
    if horizon not in HORIZONS:
        return []
    place = HORIZONS.index(horizon)
    return [
        {"model": model, "lookback": lookback, "mse": errors[place][0], "mae": errors[place][1]}
        for lookback, table in (("96", LOOKBACK_96), ("long", LONG_LOOKBACK))
        for model, errors in table.get(name, {}).items()
    ]
