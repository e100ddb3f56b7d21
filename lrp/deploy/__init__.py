"""What leaves lrp: files, networks with folded batch norms, ONNX."""
