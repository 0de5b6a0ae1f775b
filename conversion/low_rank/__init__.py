"""LoRA's matrices in the format of PEFT."""
