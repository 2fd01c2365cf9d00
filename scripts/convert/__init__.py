"""From a folder as the Hugging Face hub has it to a GGUF file: the parts of scripts/convert_hf_to_gguf.py."""
