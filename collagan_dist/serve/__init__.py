"""A page on which a person tries trained models, and the server behind it (`collagan serve`)."""
