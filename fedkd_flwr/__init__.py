"""FedKD on Flower: communication-efficient federated fine-tuning of transformers by mutual distillation."""
