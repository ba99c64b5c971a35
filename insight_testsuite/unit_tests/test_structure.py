"""The program's text: its sections, each of which knows only those above it, and the size of its parts."""

import ast
import re
import symtable
import unittest

from support import PROGRAM

COMMENT = re.compile(r"# -{10,} (.+)")      # the head of a section


def sections(source):
    """[(name, number of the first line)] of a program's sections; what is before the first is called "".

    >>> sections("import os\\n# ------------ the end\\nx = 1\\n")
    [('', 1), ('end', 2)]
    """
    heads = enumerate(map(COMMENT.fullmatch, source.splitlines()), 1)
    return [("", 1)] + [(re.sub("^the ", "", head[1]), number) for number, head in heads if head]


def section_of(line, found):
    """The place, among all sections, of the one that a line belongs to."""
    return max(place for place, (_, first) in enumerate(found) if first <= line)


def own_names(statement):
    """Yield the names that a statement of the module uses itself, not in a function, a class or a comprehension."""
    inside = ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef, *COMPREHENSIONS
    waiting = [statement]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Name):
            yield node
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            waiting += node.decorator_list
            waiting += node.bases if isinstance(node, ast.ClassDef) else node.args.defaults
        elif not isinstance(node, inside):
            waiting += ast.iter_child_nodes(node)
        elif isinstance(node, COMPREHENSIONS):
            waiting.append(node.generators[0].iter)     # the rest is a scope of its own


COMPREHENSIONS = ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp


def uses(source):
    """Yield (name, line) of each use of a name of the module: at its level by the line, else by the scope's line.

    >>> sorted(uses("y = len(z)\\ndef f(z):\\n    return lambda: x + z\\n"))
    [('len', 1), ('x', 3), ('z', 1)]
    """
    for statement in ast.parse(source).body:
        for name in own_names(statement):
            if isinstance(name.ctx, ast.Load):
                yield name.id, name.lineno
    scopes = symtable.symtable(source, "program", "exec").get_children()
    while scopes:
        scope = scopes.pop()
        scopes += scope.get_children()
        for symbol in scope.get_symbols():
            if symbol.is_referenced() and symbol.is_global():
                yield symbol.get_name(), scope.get_lineno()


def definitions(source):
    """{name: line where the module first defines it}, imports too.

    >>> sorted(definitions("import os\\nx, y = 1, 2\\ndef f(): z = 3\\nx = 4\\n").items())
    [('f', 3), ('os', 1), ('x', 2), ('y', 2)]
    """
    found = {}
    for statement in ast.parse(source).body:
        if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
            found.setdefault(statement.name, statement.lineno)
        elif isinstance(statement, (ast.Import, ast.ImportFrom)):
            for alias in statement.names:
                found.setdefault(alias.asname or alias.name.split(".")[0], statement.lineno)
        else:
            for name in own_names(statement):
                if isinstance(name.ctx, ast.Store):
                    found.setdefault(name.id, name.lineno)
    return found


def upward(source):
    """[(section, name, section that defines it)] of the uses of names that a later section defines.

    >>> upward("# ---------- a\\ndef f():\\n    return g()\\n# ---------- the b\\ndef g():\\n    return f()\\n")
    [('a', 'g', 'b')]
    """
    found, defined = sections(source), definitions(source)
    places = {name: section_of(line, found) for name, line in defined.items()}
    wrong = {(section_of(line, found), name) for name, line in uses(source)
             if places.get(name, 0) > section_of(line, found)}
    return [(found[place][0], name, found[places[name]][0]) for place, name in sorted(wrong)]


class Structure(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        with open(PROGRAM, encoding="utf-8") as file:
            cls.source = file.read()
        cls.tree = ast.parse(cls.source)

    def test_the_docstring_lists_the_sections(self):
        """As lines that begin with "* name: "."""
        listed = re.findall(r"^\* ([a-z][a-z ]*): ", ast.get_docstring(self.tree), re.MULTILINE)
        self.assertEqual(listed, [name for name, _ in sections(self.source)[1:]])

    def test_a_section_knows_only_those_above_it(self):
        self.assertEqual(upward(self.source), [])
        self.assertGreater(len(list(uses(self.source))), 500)

    def test_functions_have_at_most_40_lines(self):
        functions = [node for node in ast.walk(self.tree) if isinstance(node, ast.FunctionDef)]
        self.assertGreater(len(functions), 100)
        self.assertEqual([(node.name, lines) for node in functions
                          for lines in [node.end_lineno - node.lineno + 1] if lines > 40], [])

    def test_lines_have_at_most_96_characters(self):
        self.assertEqual([line for line in self.source.splitlines() if len(line) > 96], [])


if __name__ == "__main__":
    unittest.main()
