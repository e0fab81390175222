"""One Lightning run, safely: trainer, callbacks, exact resume and model bundles."""
