"""Agents for models that speak OpenAI's chat completions: OpenAI, Ollama, vLLM, llama.cpp, LiteLLM, OpenRouter.

Needs the extra ``openai``.
"""

from .failures import ModelFailed, ModelInterrupted, ModelRefused, ModelUnavailable, ToolFailed
from .responder import OpenAIChat
from .tools import Tool

__all__ = [
    "ModelFailed",
    "ModelInterrupted",
    "ModelRefused",
    "ModelUnavailable",
    "OpenAIChat",
    "Tool",
    "ToolFailed",
]
