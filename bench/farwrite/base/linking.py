"""How kernels become machine code: each is translated once, and optimised together with all it calls where Python calls it.

Numba optimises a kernel, and emits machine code for it, before it compiles its caller, and then once more in its caller, in that
one's caller, and so on up to the loop that Python calls: a function ten calls below a loop went through LLVM eleven times, with
all that it calls itself. Here a kernel that is compiled on behalf of another is translated to LLVM's language and no further.
The first call from Python links all parts that it needs, optimises them as one program whose inner functions nobody else can
see, and emits that. (docs/decisions/0065)

A part is kept once in the cache, named by its digest; an entry of the cache names the parts that it needs and holds machine code
where Python has called it. This builds on Numba's `JITCodeLibrary` and `Dispatcher`, which are not a stable interface: the tests
compile through all of it, and a version of Numba that has changed them fails there.
"""

from __future__ import annotations

import contextlib
import dis
import hashlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from importlib.abc import InspectLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, ClassVar
from weakref import WeakSet

import llvmlite.binding as llvm
from numba.core import codegen, compiler, config, event
from numba.core.caching import CompileResultCacheImpl, FunctionCache
from numba.core.compiler_lock import global_compiler_lock
from numba.core.dispatcher import _FunctionCompiler
from numba.core.environment import Environment, lookup_environment
from numba.core.registry import CPUDispatcher
from numba.core.sigutils import normalize_signature

ENVIRONMENT = "_ZN08NumbaEnv"  # Begins the name of the variable that points at a function's environment.
DYNAMIC = "numba.dynamic.globals"  # Begins the name of an address of this process: such code cannot be cached.
KIND = "parts"  # Of an entry of the cache; Numba's own are "object" and "bitcode".
EXPORTED = (llvm.Linkage.external, llvm.Linkage.linkonce_odr)


class Parts:
    """Translated functions by the digest of their bitcode: in this process, and in the cache."""

    def __init__(self) -> None:
        self.modules: dict[str, llvm.ModuleRef] = {}

    def add(self, module: llvm.ModuleRef) -> str:
        """Keep a module, which may be linked into many; its name from now on."""
        module = module.clone()
        for function in module.functions:
            if not function.is_declaration and function.linkage == llvm.Linkage.external:
                function.linkage = "linkonce_odr"  # Defined in several modules that are linked into one.
        name = hashlib.blake2b(module.as_bitcode(), digest_size=16).hexdigest()
        self.modules.setdefault(name, module)
        return name

    def module(self, name: str) -> llvm.ModuleRef:
        """The module of this name."""
        if name not in self.modules:
            self.modules[name] = llvm.parse_bitcode(self.path(name).read_bytes())
        return self.modules[name]

    def path(self, name: str) -> Path:
        """Where a part is in the cache."""
        return Path(config.CACHE_DIR) / "parts" / name

    def save(self, name: str) -> None:
        """Have a part in the cache. Another process may do the same."""
        path = self.path(name)
        if not path.exists():
            keep(path, self.modules[name].as_bitcode())

    def has(self, name: str) -> bool:
        """Whether a part is here or in the cache."""
        return name in self.modules or self.path(name).exists()


def keep(path: Path, data: bytes) -> None:
    """Have a file in the cache, whole or not at all."""
    path.parent.mkdir(exist_ok=True)
    made = path.with_name(f".{path.name}.{os.getpid()}")
    made.write_bytes(data)
    made.replace(path)


PARTS = Parts()


class Library(codegen.JITCodeLibrary):
    """A function and what it calls, linked and optimised only when its address is asked for."""

    entry = ""  # of a kernel: the name of the one function that Python calls, once it is to be emitted
    machine_code: bytes | None = None  # of a kernel that was loaded from the cache
    _closure: tuple[str, ...] | None = None

    def __init__(self, owner: codegen.CPUCodegen, name: str) -> None:
        super().__init__(owner, name)
        self.environments: dict[str, Environment] = {}  # of all functions in the closure
        self.symbols: tuple[str, ...] = ()  # defined in the machine code
        self.wrapper: llvm.ModuleRef | None = None

    def closure(self) -> tuple[str, ...]:
        """The names of all parts that are needed, this function's own last. Nothing can be added to it any more."""
        if self._closure is None:
            if self._shared_module is not None:  # An entry of Numba's own cache.
                self._closure = (PARTS.add(self._shared_module),)
                return self._closure
            found: dict[str, None] = {}
            for library in self._linking_libraries:
                if isinstance(library, Library):
                    found.update(dict.fromkeys(library.closure()))
                    self.environments.update(library.environments)
                    self._reload_init.update(library._reload_init)
                else:
                    found[PARTS.add(library._get_module_for_linking())] = None
            for variable in self._final_module.global_variables:
                if variable.name.startswith(ENVIRONMENT) and (known := lookup_environment(variable.name)) is not None:
                    self.environments[variable.name] = known
            own = PARTS.add(self._final_module)
            found.pop(own, None)
            self._closure = (*found, own)
        return self._closure

    @property
    def has_dynamic_globals(self) -> bool:
        own = any(variable.name.startswith(DYNAMIC) for variable in self._final_module.global_variables)
        return own or any(library.has_dynamic_globals for library in self._linking_libraries)

    def add_linking_library(self, library: codegen.CodeLibrary) -> None:
        self._linking_libraries.append(library)  # Numba's would optimise and emit it here.

    def add_llvm_module(self, ll_module: llvm.ModuleRef) -> None:
        if self.entry:
            self._optimize_functions(ll_module)
            self.wrapper = ll_module
        else:
            super().add_llvm_module(ll_module)

    def _get_module_for_linking(self) -> llvm.ModuleRef:
        if self._shared_module is None:
            self._shared_module = self._linked()
        return self._shared_module

    def _linked(self) -> llvm.ModuleRef:
        """A new module with all parts. Callers come before what they call: a part is taken only where something asks for it."""
        *others, own = self.closure()
        linked = PARTS.module(own).clone()
        linked.name = self._final_module.name
        for name in reversed(others):
            linked.link_in(PARTS.module(name), preserve=True)
        return linked

    def get_pointer_to_function(self, name: str) -> int:
        """Its address, for which all is linked, optimised and emitted; 0 where there is none of this name."""
        return super().get_pointer_to_function(name) if self._finalized or self._defines(name) else 0

    def _defines(self, name: str) -> bool:
        if name == self.entry:
            return True
        return any(function.name == name and not function.is_declaration for function in self._final_module.functions)

    def finalize(self) -> None:
        self._codegen._check_llvm_bugs()
        self._raise_if_finalized()
        if self.machine_code is not None:
            self.enable_object_caching()
            self._set_compiled_object(self.machine_code)
            self._codegen._engine._defined_symbols.update(self.symbols)
        else:
            self._link_and_optimise()
        self._finalize_final_module()
        for name, environment in self.environments.items():
            self._codegen.set_env(name, environment)

    def _link_and_optimise(self) -> None:
        own = self._final_module
        kept = {self.entry} if self.entry else {function.name for function in own.functions if not function.is_declaration}
        self._final_module = self._linked()
        if self.wrapper is not None:
            self._final_module.link_in(self.wrapper)
            self.wrapper = None
        for function in self._final_module.functions:
            if not function.is_declaration and function.linkage in EXPORTED:
                # Nobody else calls it: unused arguments are left out, and of a kernel that takes a state there are hundreds.
                function.linkage = "external" if function.name in kept else "internal"
        self._optimize_final_module()
        self._final_module.verify()
        defined = (*self._final_module.functions, *self._final_module.global_variables)
        self.symbols = tuple(value.name for value in defined if not value.is_declaration)

    def state(self) -> tuple:
        """What the cache keeps of a kernel."""
        for name in self.closure():
            PARTS.save(name)
        code = self.machine_code
        if code is None and self._finalized:
            code = self._get_compiled_object()
        return self.name, KIND, (self.closure(), code, self.symbols)

    @classmethod
    def _unserialize(cls, owner: codegen.CPUCodegen, state: tuple) -> codegen.CodeLibrary:
        name, kind, data = state
        if kind != KIND:
            return super()._unserialize(owner, state)
        self = owner.create_library(name)
        self._closure, self.machine_code, self.symbols = data
        return self


class KernelCacheImpl(CompileResultCacheImpl):
    """A kernel's entry in the cache: what Numba keeps, with the library's parts."""

    def reduce(self, cres: Any) -> tuple:
        library = cres.library
        state = library.state()
        _, *others, _ = cres._replace(library=Serialised(library, state))._reduce()
        return (state, *others, tuple(one for one in library.environments.values() if one.can_cache()))

    def rebuild(self, target_context: Any, payload: tuple) -> Any:
        closure = payload[0][2][0]
        if not all(map(PARTS.has, closure)):
            return None  # Somebody has removed it from the cache.
        cres = super().rebuild(target_context, payload)
        cres.library.environments = {one.env_name: one for one in (cres.environment, *cres.referenced_envs)}
        return cres


class Serialised:
    """A library as CompileResult._reduce() wants to see it."""

    def __init__(self, library: Library, state: tuple) -> None:
        self._final_module, self.state = library._final_module, state

    def serialize_using_object_code(self) -> tuple:
        return self.state


class KernelCache(FunctionCache):
    """The cache of one kernel."""

    _impl_class = KernelCacheImpl


class KernelCompiler(_FunctionCompiler):
    """Translates a kernel, without what Python or C would need to call it."""

    def _customize_flags(self, flags: compiler.Flags) -> compiler.Flags:
        flags.no_cpython_wrapper = flags.no_cfunc_wrapper = True
        return flags


class Kernel(CPUDispatcher):
    """A function that is compiled. Emitted as machine code for the types with which Python calls it, and for no others."""

    depth: ClassVar[int] = 0  # Of compilations on behalf of others; under Numba's lock.
    known: ClassVar[WeakSet[Kernel]] = WeakSet()

    def __init__(self, py_func: Callable, targetoptions: dict[str, Any]) -> None:
        super().__init__(py_func, targetoptions=targetoptions)
        self._compiler = KernelCompiler(py_func, self.targetdescr, targetoptions, {}, compiler.Compiler)
        self.emitted: set[tuple] = set()
        Kernel.known.add(self)

    @classmethod
    def _rebuild(cls, uuid: str, py_func: Callable, *others: Any, **named: Any) -> Kernel:
        raise TypeError(f"kernel {py_func.__name__} is part of farwrite and not sent to other processes")

    def enable_caching(self) -> None:
        self._cache = KernelCache(self.py_func)

    def cached(self) -> list[Any]:
        """For which types the cache holds it."""
        codes = self._cache._index_key(None, self.targetctx.codegen())[1:]
        return [sig for sig, *others in self._cache._cache_file._load_index() if tuple(others) == codes]

    def add_overload(self, cres: Any) -> None:
        self.overloads[tuple(cres.signature.args)] = cres  # Python cannot call it yet: emit() says how.

    def compile(self, sig: Any) -> Any:
        """Translate it for these types, and emit it unless this is done for another kernel; what Python calls."""
        with global_compiler_lock:
            Kernel.depth += 1
            try:
                entry = super().compile(sig)
            finally:
                Kernel.depth -= 1
            if Kernel.depth:
                return entry
            return self.emit(sig, tuple(normalize_signature(sig)[0]))

    def emit(self, sig: Any, args: tuple) -> Any:
        """Machine code for these types, from the cache or of all that it calls; what Python calls."""
        cres = self.overloads[args]
        if args in self.emitted:
            return cres.entry_point
        library, is_cached = cres.library, cres.library.machine_code is not None
        library.closure()
        library.entry = cres.fndesc.llvm_cpython_wrapper_name
        if is_cached:
            entry = cres.target_context.get_executable(library, cres.fndesc, cres.environment)
        else:
            with event.trigger_event("numba:compile", data={"dispatcher": self, "args": args, "return_type": None}):
                entry = self.link(cres)
        cres = cres._replace(entry_point=entry)
        self.targetctx.insert_user_function(entry, cres.fndesc, [library])
        self.overloads[args] = cres
        self._insert([one._code for one in args], entry, False)
        self.emitted.add(args)
        if not is_cached:
            self._cache.save_overload(sig, cres)
        return entry

    def link(self, cres: Any) -> Any:
        """The function that Python calls, for which all is linked, optimised and emitted."""
        flags = compiler.Flags()
        self.targetdescr.options.parse_as_flags(flags, self.targetoptions)
        context = compiler._make_subtarget(self.targetctx, flags)
        with context.push_code_library(cres.library):
            context.create_cpython_wrapper(
                cres.library, cres.fndesc, cres.environment, cres.call_helper, release_gil=flags.release_gil
            )
        if not cres.library._object_caching_enabled:
            cres.library.enable_object_caching()
        return context.get_executable(cres.library, cres.fndesc, cres.environment)


def emit_called(package: str = __name__.partition(".")[0], share: int = 0, shares: int = 1) -> None:
    """Emit what the cache holds and a function of the package's that is no kernel calls; one of several shares of it.

    What Python calls once in a while, or only after a failure, would otherwise be emitted then, while a peer waits.
    """
    for kernel in called(package)[share::shares]:
        for sig in kernel.cached() if kernel._can_compile else ():
            kernel.compile(sig)


def called(package: str) -> list[Kernel]:
    """The kernels that functions of the package's loaded modules name, other kernels left out, in the order of their places.

    To look through 250 modules takes a third of a second: what was found for the same modules is in the cache, of these sources.
    """
    modules = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == package}
    digest = hashlib.blake2b("\n".join(sorted(modules)).encode(), digest_size=16).hexdigest()
    path = Path(config.CACHE_DIR) / "called" / digest
    known = {name_of(kernel): kernel for kernel in Kernel.known}
    with contextlib.suppress(OSError):
        names = path.read_text().splitlines()
        if all(name in known for name in names):
            return [known[name] for name in names]
    found = look_up(modules.values())
    with contextlib.suppress(OSError):
        keep(path, "\n".join(map(name_of, found)).encode())
    return found


def name_of(kernel: Kernel) -> str:
    """A kernel as every process of these sources calls it."""
    return f"{kernel.py_func.__module__}:{kernel.py_func.__qualname__}"


def look_up(modules: Iterable[ModuleType]) -> list[Kernel]:
    """The kernels that functions of these modules name."""
    kernels = {place_of(kernel.py_func.__code__) for kernel in Kernel.known}
    found = set()
    for module in modules:
        if module.__spec__ is not None and isinstance(module.__spec__.loader, InspectLoader):
            code = module.__spec__.loader.get_code(module.__spec__.name)
            found.update(named(code, module, kernels) if code is not None else ())
    return sorted(found, key=lambda one: place_of(one.py_func.__code__))


def place_of(code: CodeType) -> tuple[str, int]:
    """Where a function stands."""
    return code.co_filename, code.co_firstlineno


def named(code: CodeType, module: ModuleType, kernels: set[tuple[str, int]]) -> Iterator[Kernel]:
    """The kernels that this code of a module names, as a global or as one of another module's; code of kernels is left out."""
    if place_of(code) in kernels:
        return
    value: Any = None
    for instruction in dis.get_instructions(code):
        is_global = instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME")
        is_inside = instruction.opname in ("LOAD_ATTR", "LOAD_METHOD") and isinstance(value, ModuleType)
        scope = vars(module) if is_global else vars(value) if is_inside else {}
        value = scope.get(instruction.argval)
        if isinstance(value, Kernel):
            yield value
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from named(inner, module, kernels)


def set_env(self: codegen.JITCPUCodegen, name: str, environment: Environment) -> None:
    """Numba's, where the function is emitted already."""
    if self._engine.is_symbol_defined(name):
        numbas_set_env(self, name, environment)


numbas_set_env = codegen.JITCPUCodegen.set_env
codegen.JITCPUCodegen.set_env = set_env
codegen.JITCPUCodegen._library_class = Library
