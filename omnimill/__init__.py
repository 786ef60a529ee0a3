"""omnimill: raw web data of every modality into packed, mixture-sampled any-to-any training on Ray."""

__version__ = "0.1.0"
