"""One small file per technique family; the registry imports every module in this folder."""
