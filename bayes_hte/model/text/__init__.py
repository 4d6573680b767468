"""Tell the model to people: mathematics, sentences, PyMC text."""
