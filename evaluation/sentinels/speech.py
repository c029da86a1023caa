"""Rules on what an assistant says in a message without calls: does it refuse, ask back, or write a call that is none?

They read text only and know the phrases of a dozen languages; elsewhere they see question marks alone. They count, and
only a rise over the champion means something: a phrase that a rule misses or misreads is missed on both sides.

- A refusal says that the speaker cannot, will not or must not do it, or does not understand: "I'm unable to …",
  "Ich kann leider nicht …", "抱歉，我无法…". An apology alone is none: "Sorry, order 5 is not yours" is an answer.
- A question has a question mark of any script, or asks for something: "Please provide …", "Bitte nennen Sie …". The
  offer of more help after something was done ("Anything else?") is none.
- A broken call is a call's markup or JSON in the text, where the server found no call.
"""

# ruff: noqa: RUF001, RUF002 - other scripts have signs that look like ours
import re
import unicodedata

_REFUSALS = (
    # English
    r"\b(?:i|we)(?: am| are|'m|'re)? (?:really |very |terribly |so )?(?:sorry|afraid)?,? ?(?:but )?(?:i |we )?"
    r"(?:can(?:no|')t|can not|could(?: not|n't)|(?:am|'m|are|'re) (?:not|un)(?: able|able)|won't|will not|must not"
    r"|mustn't|(?:am|'m|are|'re) not (?:allowed|permitted|authori[sz]ed)|don't understand|do not understand"
    r"|have to decline|must decline|refuse|(?:don't|do not) have (?:access|the ability|the tools?|permission))",
    r"\b(?:unable|not able) to (?:help|assist|do|complete|process|proceed|comply|fulfil|continue)",
    r"\bas an ai\b",
    # German
    r"\b(?:ich|wir) (?:kann|können|darf|dürfen|werde|werden|verstehe|verstehen)\b[^.!?]{0,40}\bnicht\b",
    r"\b(?:kann|können|darf|dürfen|werde|werden) (?:ich|wir)\b[^.!?]{0,40}\bnicht\b",
    r"\bnicht in der lage\b",
    # French, Spanish, Portuguese, Italian
    r"\bje (?:ne |n')(?:peux|suis|pourrai|comprends|vais)\b[^.!?]{0,30}\bpas\b",
    r"\bno (?:puedo|podemos|podré|entiendo|me es posible|estoy autorizad[oa])\b",
    r"\bnão (?:posso|podemos|consigo|entendo|estou autorizad[oa])\b",
    r"\bnon (?:posso|possiamo|riesco|capisco|sono in grado|sono autorizzat[oa])\b",
    # Dutch, Polish, Russian, Turkish
    r"\b(?:ik|wij|we) (?:kan|kunnen|mag|mogen|begrijp)\b[^.!?]{0,40}\bniet\b",
    r"\bnie (?:mogę|możemy|mogłem|rozumiem|jestem w stanie)\b",
    r"\bне (?:могу|можем|смогу|понимаю|имею права)\b",
    r"\b(?:yapamam|yardımcı olamam|yapamıyorum|yardımcı olamıyorum|anlamıyorum)\b",
    # Chinese, Japanese, Korean, Arabic, Hindi
    r"(?:无法|無法|不能|没办法|拒绝)(?:为您|帮助|协助|完成|处理|提供|执行|回答|这样|做)|我(?:无法|無法|不能|不明白)",
    r"(?:できません|出来ません|いたしかねます|対応できかね|お応えできません|わかりません)",
    r"(?:할 수 없|도와드릴 수 없|불가능합니다|이해하지 못)",
    r"لا (?:أستطيع|يمكنني|أفهم)",
    r"नहीं कर सकत|असमर्थ",
)
_REQUESTS = (
    r"\b(?:please|kindly|could you|can you|would you) (?:\w+ ){0,2}(?:provide|specify|clarify|confirm|tell|give|share|"
    r"send|explain|let me know|elaborate)\b",
    r"\b(?:let me know|i need (?:more|further|additional) (?:information|details)|which one do you mean)\b",
    r"\bbitte (?:\w+ ){0,3}(?:nennen|geben|teilen|sagen|bestätigen|präzisieren)\b",
    r"\b(?:veuillez|pouvez-vous|merci de) (?:me )?(?:\w+ ){0,2}(?:fournir|préciser|confirmer|indiquer|donner)\b",
    r"\b(?:por favor,?|puede|podría) (?:me )?(?:\w+ ){0,2}"
    r"(?:indique|proporcione|confirme|especifique|diga|forneça|informe)\b",
    r"\b(?:per favore|può|potrebbe) (?:\w+ ){0,2}(?:fornire|specificare|confermare|indicare|dirmi)\b",
    r"\bпожалуйста,? (?:\w+ ){0,2}(?:укажите|уточните|подтвердите|сообщите|предоставьте)",
    r"请(?:您)?(?:提供|告诉|告知|确认|说明)|請(?:您)?(?:提供|告訴|確認|說明)|[吗嗎呢][。!]?\s*$",
    r"(?:教えて|ご提供|ご確認|お知らせ)ください|ですか[。]?\s*$|ますか[。]?\s*$",
    r"(?:알려|제공해|확인해) ?주(?:세요|시겠)|(?:까요|나요|습니까)[.]?\s*$",
)
_OFFERS = re.compile(
    r"(?:anything|something) else|further (?:help|assistance|questions)|help you with|more i can|"
    r"sonst noch|noch etwas|weiterhelfen|autre chose|d'autre|algo más|algo mais|qualcos'altro|altro|iets anders|"
    r"coś jeszcze|что-то ещё|что-нибудь ещё|还有(?:什么|其他)|其他(?:问题|需要)|ほかに|他に|다른"
)
_QUESTION_MARKS = frozenset("?\u037e\u055e\u061f\u1367\u2047\u2048\u2049\u2cfa\ufe56\uff1f\u1945\ua60f\ua6f7")
_REFUSAL = re.compile("|".join(_REFUSALS))
_REQUEST = re.compile("|".join(_REQUESTS))
_BROKEN_CALL = re.compile(
    r"</?(?:tool_call|function_call|tool|function|invoke)s?\b[^>]*>|<function=|\[tool_calls\]|<\|(?:python_tag|tool_call)|"
    r"```(?:tool|tool_call|tool_code|function_call)\b|"
    r"\{\s*\\?[\"'](?:name|function|tool|tool_name)\\?[\"']\s*:[^{}]*[\"'](?:arguments|parameters|args|input)\\?[\"']\s*:"
)
_SENTENCE_END = re.compile(r"(?<=[.!?。！？؟\u037e\n])\s*")


def refuses(text: str) -> bool:
    """Return whether the text refuses.

    >>> refuses("I’m sorry, but I can't help with that."), refuses("Das kann ich leider nicht: ich darf es nicht.")
    (True, True)
    >>> refuses("Sorry, order 17 is not yours."), refuses("open fridge")
    (False, False)
    """
    return _REFUSAL.search(_plain(text)) is not None


def asks(text: str, after_action: bool = False) -> bool:
    """Return whether the text asks back; an offer of more help does not, `after_action`.

    >>> asks("Which order do you mean?"), asks("请提供订单号。"), asks("Refunded: lamp.")
    (True, True, False)
    >>> asks("It is done. Anything else?", after_action=True), asks("Anything else?")
    (False, True)
    """
    # Normalised, the Greek question mark is a semicolon.
    return any(
        (not _QUESTION_MARKS.isdisjoint(sentence) or _REQUEST.search(_plain(sentence)))
        and not (after_action and _OFFERS.search(_plain(sentence)))
        for sentence in _SENTENCE_END.split(text)
    )


def writes_broken_call(text: str) -> bool:
    r"""Return whether the text holds a call that the server did not read as one.

    >>> writes_broken_call('<tool_call>{"name": "refund"'), writes_broken_call("Your refund is on its way.")
    (True, False)
    """
    return _BROKEN_CALL.search(_plain(text)) is not None


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold().replace("\u2019", "'").replace("\u02bc", "'")
