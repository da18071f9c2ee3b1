"""Strings that tokenizers disagree on, for make_goldens.py and compare_tokenizer.py."""
import random

SPECIALS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
SPACES = [" ", "\t", "\n", "\r", "\r\n", "\v", "\f", "\x1c", "\x1f", "\x85", "\xa0", "\u1680", "\u2003", "\u200a",
          "\u200b", "\u2028", "\u2029", "\u202f", "\u205f", "\u3000", "\ufeff", "\u2060", "\u180e"]


def around_specials():
    for token in SPECIALS:
        yield from (token, f"a {token} b", f"a{token}b", f" {token} ", f"{token}{token}", f"x {token}", f"{token} x",
                    token.lower(), f"{token}\n{token}", f"the{token}school {token}.", f"[{token}]")
    yield from ("[SEP", "SEP]", "[ SEP ]", "[[SEP]]", "[SE\u00adP]", "[UN\ufeffK]", "[SEP\u200b]", "［SEP］", "［UNK］ a",
                "a［UNK］b", "［MASK］", "[unk][UNK][Unk]", "[CLS] a [SEP] b [SEP]", "[UNK]\u0301", "[SEP]\u0301a",
                "\u0600[SEP]", "[UNK]é[UNK]", "<0x41>", "a<0x0A>b", "<unk>", "<s> </s>", "<pad>")


def around_spaces():
    for space in SPACES:
        yield f"a{space}b"
        yield f"{space}a{space}{space}b{space}"
        yield f"The end.{space}"
    yield from ("", " ", "   ", "\n\n", " \t\r\n", "a  b", "a\u200b\u200bb", "a \u200b b", "\u200b", "a \ufeff b",
                "▁", "▁▁", "a▁b", "▁a", " ▁ a", "a ▁", "\u3000\u3000a\u3000")


def characters():
    yield from ("\x00", "a\x00b", "\x00\x00", "\x01\x02", "\x07bell", "\x7f", "\x80\x81", "\x9d", "soft\u00adhyphen",
                "\ufffd", "\uffff", "\U0010ffff", "\ue000", "zero\u200dwidth\u200cjoiners", "\u202eright to left\u202c")
    yield from ("A\u0302\u0300", "\u1ea6", "e\u0301", "é", "a\u0308\u0323", "\u0301", " \u0301", "a\u0301\u0301\u0301",
                "ª\u0301", "™\u0301", "①\u0301", "ﬁ\u0301", "½\u0301", "\u0344", "\u212b", "Å", "A\u030a", "\u1100\u1161",
                "\u1100\u1161\u11a8", "가", "각\u11a8", "ㄱㅏ", "\u3131\u0301", "か\u3099", "が", "ｶﾞ", "क्ष", "क़", "क\u093c",
                "क्क़\u0301", "\u0915\u094d\u0958\u0301", "\u0915\u200c\u094d\u0958\u0301", "\u0958\u0301", "ड़", "ക്ഷ", "ก็", "ພາສາ", "\u0600a", "\u06dd1")
    yield from ("ﬁne oﬃce", "ﬀ ﬂ ﬅ", "ǆ Ǆ", "Ĳ", "①②③", "½ ¾ ⅓", "x² y³", "H₂O", "№ 5", "℃", "™ © ®", "㎏", "㍿", "㋿",
                "ＦＵＬＬ ｗｉｄｔｈ １２３", "ｈａｌｆ", "ﾊﾝｶｸ", "𝒻𝒶𝓃𝒸𝓎", "𝐁𝐨𝐥𝐝", "ﷺ", "…", "a…b", "‥", "″", "‼", "⁉")
    yield from ("日本語のテキスト", "中文，标点。", "한국어 문장", "русский текст", "Ελληνικά", "עברית", "العربية", "हिन्दी", "ไทย", "𠮷野家",
                "English日本English", "naïve café", "Straße", "İstanbul", "ﬃ", "ŉ", "ſ")
    yield from ("😀", "😀😀", "a😀b", "👨\u200d👩\u200d👧\u200d👦", "👍🏽", "🇩🇪🇫🇷", "🇩", "❤\ufe0f", "❤", "1\ufe0f\u20e3", "🏴\U000e0067\U000e0062\U000e007f",
                "😀\u200d™\u0301", "😀\u200d❤", "©\u200d®\u0301", "☺\ufe0e", "🈁", "🅰", "\U0001fae8", "㊗\u0301")


def words():
    yield from ("!!!!!!!!!!!!!!!!!", "." * 50, "?!?!?!?!?!", "-" * 33, "a" * 100, "ha" * 40, "lol" * 15, "z" * 257,
                "Supercalifragilisticexpialidocious" * 4, "x" * 2000, "é" * 300, "日" * 100, "\u0301" * 50, "😀" * 64,
                "don't don’t don`t", "“quotes” ‘single’ \"plain\"", "well-known—dash–en", "3.14159 1,000,000 50%",
                "http://example.org/a?b=c#d", "user@example.org", "C:\\path\\file", "a/b/c", "#hashtag @name", "$5.00 €5 £5",
                "i beleive that shcool is importent becuase", "THE SCHOOL BOARD", "iPhone", "a.b.c.d", "(((nested)))",
                "tab\tseparated\tvalues", "line one\nline two\r\nline three\rline four", "end.Start", "1st 2nd 3rd",
                "<b>bold</b> &amp; &nbsp;", "{\"json\": [1, 2]}", "a" + " " * 60 + "b", "word " * 200)


def nasty_strings():
    seen = []
    for part in (around_specials(), around_spaces(), characters(), words()):
        seen += [text for text in part if text not in seen]
    return seen


def character_between(rng, first, last):
    while True:
        code = rng.randint(first, last)
        if not 0xD800 <= code < 0xE000:
            return chr(code)


RANGES = [(0, 0x7F), (0x80, 0x24F), (0x300, 0x36F), (0x590, 0x6FF), (0x900, 0x97F), (0x980, 0xDFF), (0x1100, 0x11FF),
          (0x2000, 0x206F), (0x2100, 0x24FF), (0x3000, 0x33FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xF900, 0xFDFF),
          (0xFE00, 0xFFEF), (0x1D400, 0x1D7FF), (0x1F1E6, 0x1F1FF), (0x1F300, 0x1FAFF), (0, 0xFFFF), (0, 0x10FFFF)]
CHOICES = [SPACES, [token for token in SPECIALS for _ in (0, 1)] + ["[sep]", "[", "]", "［SEP］", "［UNK］", "<0x41>", "▁"],
           list("\u0300\u0301\u0302\u0308\u0323\u0345\u20dd\u3099\ufe0f\u200d\u200c\u00ad\u034f"),
           list("\u0600\u06dd\u070f\u08e2\u0d4e\U000110bd"), list("क्षज्ञख़ड़्\u200d\u200c"),
           list("👨👩❤🏽🇩🇪©™‼⁉Ⓜ㊗ℹ🈁🅰"), ["the", "school", "beleive", "'s", "don’t", "—", "…", "3.14", "ﬃ", "①", "e\u0301"]]


def random_string(rng):
    """Up to 12 bits of text of up to 4 kinds."""
    def bit():
        kind = rng.random()
        if kind < 0.4:
            return character_between(rng, *rng.choice(RANGES))
        if kind < 0.75:
            return rng.choice(rng.choice(CHOICES))
        if kind < 0.87:
            return rng.choice(["ha", "!", "..", "lol", "-", "ab", "é"]) * rng.randint(1, 25)
        return "".join(rng.choice("abcdehilnorst") for _ in range(rng.randint(1, 30)))
    return "".join(bit() for _ in range(rng.randint(1, 12)))


def random_strings(count, seed):
    rng = random.Random(seed)
    return [random_string(rng) for _ in range(count)]
