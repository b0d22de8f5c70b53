"""Checkpoints from any source become a model's folder with an ONNX graph.

These are the parts of `fetch_model.py`, `convert_encoder.py` and `export_onnx.py`.
"""
