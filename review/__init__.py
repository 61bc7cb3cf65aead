"""Room for the readers' page: worklist, viewer, decisions. Empty until it is built; needs no model and no GPU."""
