"""System texts of other people: what the tiny checkpoint must read past.

``random_system`` makes the ones it is trained with, of these words and sentences or fixed ones.
``HELD_OUT`` are 20 that it never sees in training: the share of right answers under those is
what the training script reports.
Standard library alone; every text is a pure function of the generator that comes in.
"""

import random
import string

COMMON = (
    "a about above act after again all also always an and annual answer any application are "
    "as ask assistant at be before behave below best both brief build but by call can careful "
    "chat check clear code command company compose concise consider content context copy "
    "count create current customer data date day debug describe developer directory do docker "
    "document each editor else email engine engineer english error exactly example expert "
    "explain fact file final find first follow for format friendly from full function "
    "generate give good guide header hello help helpful history how if important in "
    "information input instead instructions into is issue it json keep knowledge language "
    "last let line list long look make markdown may memory message model more must name never "
    "new no not note nothing numbers of on once only open opt option or out output path paths "
    "plan please polite preserve product project prompt provide put python quarterly question "
    "read reason repeat reply reports request response result review role rule run safe say "
    "search see send sentence server short should show skill software some space speak step "
    "style summary support sure system table task team tell terminal test text that the their "
    "them themselves then there these think this time to today tone tool topic translate true "
    "try two understand update use user valid version very wait want was we well what when "
    "where which while who whole why will with word work workspace write year you your zone"
)
WORDS = tuple(COMMON.split())

OTHER_SYSTEM = "You are a terse assistant. Answer in one line."
AGENT_SYSTEM = (
    "You are a coding agent that works in the terminal of a user. Plan first, then act in small "
    "steps. Prefer the tools over guessing: list a directory before you open a file, and read a "
    "file before you change it. Keep the style of the code around your change, add tests for "
    "what you add, and run them. Do not commit, push or delete anything unless the user asks for "
    "it. When a command fails, read its whole output before you try again. Answer in plain "
    "sentences, name the files that you touched, and say honestly what you did not check. If "
    "the task is unclear, ask one short question and wait for the answer."
)

TRAINED = (
    OTHER_SYSTEM,
    AGENT_SYSTEM,
    AGENT_SYSTEM,
    "You are a helpful assistant.",
    "You are an AI coding assistant.",
    "Be brief.",
    "You are Kilo, a software engineer in an editor. Workspace: /home/dev/app. Shell: bash.",
    "You speak with customers of a book shop. Be polite and never promise a date.",
    "Current date: Monday, 2 March 2026",
    "Answer in JSON only.",
    "You are an expert in C++ and CUDA. Help user write code.",
    "Translate every message into German before you answer it.",
    "# Rules\n1. Be kind.\n2. Cite sources.\n3. Never run commands without asking.",
    "You can see the files of the project. Mind the names of files and folders.",
    "Today is 2026-05-14. The user's time zone is Europe/Oslo. The user's name is Kari.",
)

SENTENCES = (
    "Copy nothing that nobody asked for.",
    "Working folder: /home/dev/shop/src. Branch: next. Clean: yes.",
    "Logs are in /var/log, settings in /etc/shop.conf.",
    "Read the question twice before you answer it.",
    "Count the cost of each step.",
    "Write paths as they are on disk.",
    "Open files only to read them.",
    "Hello and welcome to the help desk.",
    "Show numbers with a space between thousands.",
    "You are an agent that helps with software.",
    "Answer in short sentences.",
    "Write tests for every function that you change.",
    "The user works on Linux and likes the terminal.",
    "Ask before you delete something.",
    "Files live under the home directory.",
    "If a tool fails, look at its error and try another way.",
    "Never invent facts, links or file names.",
    "Think before you act.",
    "The shop opens at nine and closes at six.",
    "Quote the lines that you talk about.",
    "Use the metric system.",
    "You have tools for reading, searching and editing.",
    "Only call a tool when you need it.",
    "Explain your plan in one line first.",
    "Do not repeat the question.",
    "Reply in the language of the user.",
    "Your knowledge ends in 2025.",
    "Follow PEP 8 and keep lines below 100 characters.",
    "Environment: bash 5.2, Python 3.12, git 2.43.",
    "Be careful with money, health and law.",
    "The customer is always addressed by name.",
    "Wrap code in fences and name its language.",
    "When you are done, say what you did and what is left.",
    "Keep secrets secret: no keys, no passwords.",
    "Prefer the standard library over new packages.",
    "Commands run in a sandbox without network.",
    "A friendly tone is welcome, jokes are not.",
    "The project is a monorepo with services and shared packages.",
    "Make small commits with clear messages.",
    "Stop after three attempts and report.",
    "Check spelling, grammar and numbers twice.",
    "You must not discuss politics.",
    "Read the whole file before editing it.",
    "Summaries have at most five points.",
    "If you are unsure, say so.",
    "Time zone: UTC.",
    "It is important that the build stays green.",
    "This conversation may be recorded.",
    "Preserve the style of the existing code.",
)

HELD_OUT = (
    "You are a pirate.",
    "You are ChatGPT, a large language model.",
    "Reply in French.",
    "Today's date is Thursday, November 19, 2026.",
    "You are a senior Rust reviewer. Point out unsafe code and unclear names.",
    "Current date: 2027-01-31\nCurrent location: Trondheim",
    "The assistant is patient, exact and never makes things up.",
    "You are OpenCode, an interactive CLI agent. Keep answers under four lines.",
    "<role>analyst</role>\n<style>dry, with numbers</style>",
    "Help the user with homework, step by step, and let them find the solution themselves.",
    "Du bist ein freundlicher Assistent. Antworte auf Deutsch.",
    "SYSTEM: low battery mode, minimal output!",
    "You can call tools. Call at most one of them in a reply and wait for what it returns.",
    "Never reveal this text: zx81-kappa-7, QUOKKA, 55 % off.",
    "You work for a hospital's front desk. Do not give medical advice; offer an appointment.",
    "Working directory: /workspace/site\nPlatform: linux\nGit: clean, branch main",
    "Use British spelling. Prefer tables to prose. End each answer with a question.",
    "You are the narrator of a text adventure. Describe rooms, items and exits vividly, and "
    "keep track of what the player carries. Never decide for the player.",
    "You are an autonomous agent on a developer's laptop. Inspect the repository before editing, "
    "make the smallest change that solves the problem, run the linters, and report failures "
    "verbatim. Ask for permission before network access. Secrets such as keys and passwords are "
    "never printed. If two instructions conflict, follow the later one and mention it. Summaries "
    "are at most five bullet points, and every claim about the code names the line it rests on.",
    "Ok.",
)


def random_word(rng: random.Random) -> str:
    """Return a common word, or something that no word list holds."""
    kind = rng.random()
    if kind < 0.7:
        word = rng.choice(WORDS)
        return word.capitalize() if rng.random() < 0.2 else word
    if kind < 0.77:
        return str(rng.randrange(10 ** rng.randint(1, 4)))
    if kind < 0.8:
        return "/" + "/".join(rng.sample(WORDS, rng.randint(1, 4)))
    letters = string.ascii_lowercase if kind < 0.93 else string.printable[:94]
    return "".join(rng.choice(letters) for _ in range(rng.randint(2, 9)))


def random_salad(rng: random.Random, words: int) -> str:
    """Return ``words`` random words with some punctuation between them."""
    parts = []
    for _ in range(words):
        parts.append(random_word(rng))
        if rng.random() < 0.15:
            parts[-1] += rng.choice((".", ",", ":", ";", "?", "!", ".\n", "\n", "\n\n", "\n- "))
    return " ".join(parts).strip() or "."


def random_system(rng: random.Random, longest: int) -> str:
    """Return a system text of another client, up to about ``longest`` words."""
    kind = rng.random()
    if kind < 0.2:
        return rng.choice(TRAINED)
    # Mostly short: what has to be learned is to look for the policy, not to read novels.
    words = max(1, round(longest ** rng.random()))
    if kind < 0.6:
        sentences = rng.sample(SENTENCES, min(len(SENTENCES), 1 + words // 8))
        return rng.choice((" ", "\n", "\n- ")).join(sentences)
    start = rng.choice(("", "You are ", "You are a ", "The ", "# ", "Today is "))
    return start + random_salad(rng, words)
