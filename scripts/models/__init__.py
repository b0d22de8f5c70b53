"""Checkpoints, from wherever they come, become a model's folder with its ONNX graph.

`fetch_model.py`, `convert_encoder.py` and `export_onnx.py` are made of these parts.
"""
