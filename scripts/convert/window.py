"""Layers that look back on a limited number of tokens."""

from .fail import fail
from .gguf_file import BOOL

KINDS = {"full_attention": False, "sliding_attention": True}


def limited(config, usual):
    """Of each layer, whether it has a window: as config.json lists it, else `usual`."""
    kinds, n_layer = config.raw.get("layer_types"), config["n_layer"]
    if kinds is None:
        return [usual(i) for i in range(n_layer)]
    if not isinstance(kinds, list) or len(kinds) != n_layer:
        fail(f"{config.path}: layer_types: {len(kinds) if isinstance(kinds, list) else 'no'} kinds for {n_layer} layers")
    for kind in kinds:
        if not isinstance(kind, str) or kind not in KINDS:
            fail(f"{config.path}: layer_types: layers of kind {str(kind)[:60]} are not supported; {', '.join(KINDS)} are")
    return [KINDS[kind] for kind in kinds]


def write(keys, config, family):
    """The keys of a model some of whose layers have a window that is shorter than the context."""
    window = config.get("sliding_window")
    if not config.truth("use_sliding_window", True):
        window = None
    layers = limited(config, family.windowed(config) if window else lambda i: False)
    if not any(layers):
        return
    if type(window) is not int or window < 1:
        config.wrong("sliding_window", window)
    if window >= config["n_ctx"]:
        return
    keys.u32("{}.attention.sliding_window", window)
    # What files of the architecture need not say.
    if layers != [family.windowed_in_files(i) for i in range(config["n_layer"])]:
        keys.array("{}.attention.sliding_window_pattern", BOOL, layers)
