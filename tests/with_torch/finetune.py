"""A language model of a few thousand weights, fine-tuned with LoRA on four sentences; runs inside an environment of the
profile ``finetune`` and uses every package of it. Nothing is downloaded."""

from __future__ import annotations

import glob
import json
import os
import sys
import tempfile

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TRANSFORMERS_OFFLINE="1", CUDA_VISIBLE_DEVICES="")

import accelerate
import datasets
import numpy
import peft
import tensorboard
import torch
import transformers
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments


def main() -> None:
    """Train a few steps; print versions and losses as JSON."""
    torch.manual_seed(0)
    assert torch.from_numpy(numpy.arange(3)).sum().item() == 3
    model = GPT2LMHeadModel(GPT2Config(vocab_size=32, n_positions=16, n_embd=16, n_layer=1, n_head=2))
    lora = peft.get_peft_model(
        model, peft.LoraConfig(r=2, target_modules=["c_attn"], task_type="CAUSAL_LM", fan_in_fan_out=True)
    )
    tokens = [[(start + step) % 32 for step in range(8)] for start in range(4)]
    data = datasets.Dataset.from_dict({"input_ids": tokens, "labels": tokens})
    with tempfile.TemporaryDirectory() as folder:
        logs = os.path.join(folder, "logs")
        os.environ["TENSORBOARD_LOGGING_DIR"] = logs
        settings = {"output_dir": folder, "max_steps": 20, "per_device_train_batch_size": 4, "learning_rate": 0.05}
        settings.update(report_to=["tensorboard"], logging_steps=5, save_strategy="no", seed=0)
        if "logging_dir" in TrainingArguments.__dataclass_fields__:
            settings["logging_dir"] = logs
        trainer = Trainer(model=lora, args=TrainingArguments(**settings), train_dataset=data)
        trainer.train()
        losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
        lora.save_pretrained(os.path.join(folder, "adapter"))
        written = sorted(os.path.basename(path) for path in glob.glob(os.path.join(folder, "adapter", "*")))
        events = glob.glob(os.path.join(folder, "**", "events.out.tfevents.*"), recursive=True)
    packages = (accelerate, datasets, numpy, peft, tensorboard, torch, transformers)
    found = {package.__name__: package.__version__ for package in packages}
    json.dump({"versions": found, "losses": losses, "written": written, "events": len(events)}, sys.stdout)


if __name__ == "__main__":
    main()
