// Prints the syntax trees of Groovy files as one JSON document. Nothing of them is run: the compiler stops when it has
// made the trees. Arguments: the files.
import groovy.json.JsonOutput
import org.codehaus.groovy.ast.*
import org.codehaus.groovy.ast.expr.*
import org.codehaus.groovy.ast.stmt.*
import org.codehaus.groovy.control.*
import org.codehaus.groovy.control.messages.SyntaxErrorMessage

class Trees {

    static Map of(String name) {
        def settings = new CompilerConfiguration(sourceEncoding: 'UTF-8')
        // The one transformation of this phase fetches what an @Grab names.
        settings.disabledGlobalASTTransformations = ['groovy.grape.GrabAnnotationTransformation'] as Set
        def unit = new CompilationUnit(settings)
        unit.addSource(new File(name))
        try {
            unit.compile(Phases.CONVERSION)
        } catch (MultipleCompilationErrorsException wrong) {
            return [file: name, error: said(wrong.errorCollector.errors[0])]
        }
        def module = unit.AST.modules[0]
        [
            file: name,
            annotations: annotations(module),
            methods: module.methods.collect {
                node('method', it, [name: it.name, parameters: it.parameters*.name, block: block(it.code)])
            },
            statements: block(module.statementBlock),
        ]
    }

    private static Map said(Object problem) {
        problem instanceof SyntaxErrorMessage ?
            [line: problem.cause.line, message: problem.cause.originalMessage] :
            [line: 0, message: problem.cause.toString()]
    }

    private static List annotations(ModuleNode module) {
        def declared = module.statementBlock.statements.findAll { it instanceof ExpressionStatement }*.expression
        (declared + module.imports + module.starImports)*.annotations.flatten().findAll { it }.collect {
            node('annotation', it, [name: it.classNode.name, items: it.members.values().collect { expression(it) }])
        }
    }

    private static Map node(String kind, ASTNode at, Map more = [:]) {
        [kind: kind, line: at.lineNumber] + more
    }

    private static List block(Statement code) {
        def all = code instanceof BlockStatement ? code.statements : [code]
        all.findAll { it != null && !(it instanceof EmptyStatement) }.collect { statement(it) }
    }

    private static Map statement(Statement one) {
        switch (one) {
            case ExpressionStatement:
                return expression(one.expression)
            case ReturnStatement:
                return node('return', one, [items: [expression(one.expression)]])
            case IfStatement:
                return node('if', one, [
                    items: [expression(one.booleanExpression)], block: block(one.ifBlock), otherwise: block(one.elseBlock),
                ])
            case BlockStatement:
                return other(one, block(one))
            case ForStatement:
                return other(one, block(one.loopBlock), [expression(one.collectionExpression)])
            case WhileStatement:
                return other(one, block(one.loopBlock), [expression(one.booleanExpression)])
            case TryCatchStatement:
                def parts = [one.tryStatement, *one.catchStatements*.code, one.finallyStatement]
                return other(one, parts.collectMany { block(it) })
            default:
                return other(one)
        }
    }

    private static Map other(ASTNode one, List block = [], List items = []) {
        node('other', one, [name: one.class.simpleName, block: block, items: items])
    }

    private static Map expression(Expression one) {
        switch (one) {
            case ConstantExpression:
                return node('constant', one, [value: one.value])
            case GStringExpression:
                def parts = [one.strings, one.values].transpose().flatten() + one.strings.drop(one.values.size())
                return node('text', one, [items: parts.collect { expression(it) }])
            case VariableExpression:
                return node('variable', one, [name: one.name])
            case PropertyExpression:
                return node('property', one, [name: one.propertyAsString ?: '', items: [expression(one.objectExpression)]])
            case MethodCallExpression:
                return call(one)
            case NotExpression:
                return node('not', one, [items: [expression(one.expression)]])
            case BooleanExpression:
                return expression(one.expression)
            case TernaryExpression:
                def parts = [one.booleanExpression, one.trueExpression, one.falseExpression]
                return node('choice', one, [items: parts.collect { expression(it) }])
            case BinaryExpression:
                def kind = one instanceof DeclarationExpression ? 'declaration' : 'operation'
                return node(kind, one, [
                    name: one.operation.text, items: [expression(one.leftExpression), expression(one.rightExpression)],
                ])
            case MapExpression:
                return node('map', one, [named: named(one)])
            case ListExpression:
                return node('list', one, [items: one.expressions.collect { expression(it) }])
            case ClosureExpression:
                return node('closure', one, [
                    parameters: one.parameters*.name ?: [], block: block(one.code),
                ])
            case TupleExpression:
                return other(one, [], one.expressions.collect { expression(it) })
            case CastExpression:
                return expression(one.expression)
            default:
                return other(one)
        }
    }

    private static List named(MapExpression map) {
        map.mapEntryExpressions.collect { [it.keyExpression.text, expression(it.valueExpression)] }
    }

    // Of `timeout(time: 1, unit: 'HOURS') { ... }`: the named arguments, the others, and the block that comes last.
    private static Map call(MethodCallExpression one) {
        def given = one.arguments instanceof TupleExpression ? one.arguments.expressions : [one.arguments]
        def last = given && given[-1] instanceof ClosureExpression ? given[-1] : null
        def names = given.find { it instanceof MapExpression }
        node('call', one, [
            name: one.methodAsString ?: '',
            on: one.implicitThis ? null : expression(one.objectExpression),
            named: names ? named(names) : [],
            items: given.findAll { !it.is(names) && !it.is(last) }.collect { expression(it) },
            block: last ? block(last.code) : null,
        ])
    }

}

println JsonOutput.toJson(args.collect { Trees.of(it) })
