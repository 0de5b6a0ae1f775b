"""Weights from other formats to ours and back; torch is imported only here and in tests."""
