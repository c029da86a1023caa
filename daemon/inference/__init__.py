"""The embedded inference server: the OpenAI API and vLLM's adapter endpoints, for machines without a GPU."""
