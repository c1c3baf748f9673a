"""Use of a trained model: evaluation, completion of pictures, label maps for photographs, export."""
